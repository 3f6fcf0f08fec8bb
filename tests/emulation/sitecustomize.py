"""Makes vLLM take this processor for a lesser one; first on the path of every process that tests.isa starts.

vLLM asks PyTorch, whose answers no setting changes.
"""

import os

import torch

LEVEL = os.environ["TOKENFORMER_MAX_CPU_LEVEL"]

torch.cpu._is_amx_tile_supported = torch.cpu._is_amx_fp16_supported = lambda: False
torch.cpu._is_avx512_bf16_supported = lambda: False
if LEVEL == "avx2":
    torch.cpu._is_avx512_supported = torch.cpu._is_vnni_supported = lambda: False
