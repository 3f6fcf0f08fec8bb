"""Kernels for GPUs, in Triton. They have never run on a GPU; tests run them in Triton's interpreter."""
