"""The lowest layer: child processes, cores, memory, and the log."""
