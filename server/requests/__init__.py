"""Requests and responses: their types, their limits, and the names of their parameters."""
