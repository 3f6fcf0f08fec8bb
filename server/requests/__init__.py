"""Types of requests and responses, limits, and names of parameters."""
