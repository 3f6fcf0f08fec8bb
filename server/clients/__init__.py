"""Clients that come along and use nothing but the API."""
