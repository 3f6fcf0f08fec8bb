"""The models that can be served, as a checkpoint on disk or on the Hub: what they are, and what they have."""
