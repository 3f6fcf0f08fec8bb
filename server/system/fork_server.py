"""Imported first by Python's fork server, which SIGTERM would end: the API process takes its end for the engine's."""

from server.system.child_process import protect

protect()
