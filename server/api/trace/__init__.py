"""`POST /v1/trace`: the parameter tokens that made an output, by the reference model."""

MAX_POSITIONS = 500_000
"""Limit on the corpus; further texts are left out. A position takes `index.KEPT` times 6 bytes: 192 MB in all."""
