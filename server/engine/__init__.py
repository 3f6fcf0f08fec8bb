"""vLLM's engine client and its outputs with our overrides: the API process's side of the engine."""
