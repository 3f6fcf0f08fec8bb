"""Limits on connections: on each one, on their number, and on the bytes of their bodies."""
