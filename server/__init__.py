"""The API process: `tokenformer serve` and the other commands. Every process of a server imports this first."""

from model_impl.cuda_packages import hide_cuda_packages

hide_cuda_packages()
