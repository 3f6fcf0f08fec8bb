"""`tokenformer calibrate` and `tokenformer profile`, which write what `serve` reads."""
