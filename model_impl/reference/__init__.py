"""The model in plain PyTorch: the formulas that every kernel is held to."""
