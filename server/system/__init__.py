"""Below everything else: child processes, cores, memory, and the log."""
