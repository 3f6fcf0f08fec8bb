"""Routes and what they answer with, on vLLM's serving classes."""
