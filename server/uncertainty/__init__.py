"""From a choice's tokens to a calibrated risk, without vLLM and HTTP."""
