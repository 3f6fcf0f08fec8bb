"""The Tokenformer on vLLM's layers, attention and paged KV cache."""
