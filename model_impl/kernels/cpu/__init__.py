"""Kernels for CPUs, in C (csrc/), on weights packed as oneDNN packs them."""
