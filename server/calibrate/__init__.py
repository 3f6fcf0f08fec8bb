"""`tokenformer calibrate`, which writes what `serve` reads."""
