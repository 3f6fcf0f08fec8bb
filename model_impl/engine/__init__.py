"""vLLM's worker, sampler and scheduler with our overrides: the engine process."""
