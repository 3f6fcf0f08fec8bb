"""Connections: what one may hold, how many there are, and what their bodies take together."""
