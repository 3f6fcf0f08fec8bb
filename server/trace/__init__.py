"""`POST /v1/trace`: which parameter tokens made an output, by the reference model."""
