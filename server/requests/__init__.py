"""What clients may ask for: the types of requests and responses, and their limits."""
