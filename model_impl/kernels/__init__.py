"""The formulas of `model_impl.reference.model`, fast."""
