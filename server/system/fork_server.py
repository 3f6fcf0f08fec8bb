"""Imported first by Python's fork server, to survive SIGTERM: the API process takes its end for the engine's."""

from server.system.child_process import protect

protect()
