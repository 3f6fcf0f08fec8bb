"""`POST /v1/trace`: the parameter tokens that made an output, by the reference model."""
