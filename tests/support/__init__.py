"""Shared by tests: servers, engines, tiny models, exact formulas. Nothing in here is a test."""
