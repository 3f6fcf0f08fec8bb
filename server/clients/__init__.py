"""Included clients, which use nothing but the API."""
