"""Checkpoints: directories in, directories out, without vLLM."""
