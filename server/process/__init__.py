"""The server as a process: its flags, its start, its signals and its end."""
