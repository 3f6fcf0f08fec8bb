"""Training: `tokenformer train`, on the Trainer of transformers."""
