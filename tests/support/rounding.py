"""The largest difference of float32 logits between two computations of one model, from the rounding of each operation.

Processors and batches sum in different orders. The reference model runs in float64, and to the result of each operation
an error is added, of random sign and of the size that float32 with any such order may make:

- A sum of n products t_1, ..., t_n, one after the other, rounds n partial sums s_k, each by at most u |s_k|, u = 2^-24.
  Rounding errors are independent with a variance of at most (u s_k)^2 / 3. In any order that does not depend on the
  values, E s_k^2 <= k / n |t|^2 + (k / n)^2 S^2, with |t| the Euclidean norm of the products and S their sum. So the
  error of the sum has a standard deviation of at most u sqrt(n) sqrt(|t|^2 / 6 + S^2 / 9). What is added is
  u sqrt(n) sqrt(|t|^2 + S^2), 2.4 of them and more. Blocked sums, as vector units make them, round less.
- A reduction over n numbers is such a sum, and is relative: u sqrt(n).
- Any other function of single numbers has `FUNCTION` units of error.

The model itself then says how far the logits move. The largest of several draws is the error of one computation.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from model_impl.reference.model import ReferenceTokenformer

UNIT = 2.0**-24
"""u: the relative error of one float32 operation."""

FUNCTION = 4
"""Units by which exponentials and error functions may be wrong: the bound of glibc's and SLEEF's vector functions."""

DRAWS = 8

PRODUCTS = {"mm", "bmm", "addmm"}
REDUCTIONS = {"sum", "mean", "native_layer_norm", "_softmax", "_safe_softmax"}


class Rounding(TorchDispatchMode):
    """Adds to each result a rounding error as float32 may make it."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        result = made[0] if isinstance(made, tuple) else made
        if not (isinstance(result, torch.Tensor) and result.is_floating_point()):
            return made
        name = function.overloadpacket.__name__
        if name in PRODUCTS:
            *_, a, b = args
            size = math.sqrt(a.shape[-1]) * (a.square() @ b.square() + result.square()).sqrt()
        elif name in REDUCTIONS:
            size = math.sqrt(args[0].shape[-1]) * result.abs()
        elif torch.Tag.pointwise in function.tags:
            size = FUNCTION * result.abs()
        else:  # moves numbers
            return made
        sign = 2 * torch.randint(2, result.shape, generator=self.generator, dtype=torch.int8) - 1
        moved = result + torch.where(size.isfinite(), UNIT * size, 0) * sign
        return (moved, *made[1:]) if isinstance(made, tuple) else moved


@torch.no_grad()
def logit_tolerance(model: ReferenceTokenformer, ids: torch.Tensor, stage: int = -1) -> torch.Tensor:
    """float64 [B, T]: how far any logit after each of the tokens `ids` [B, T] may differ between two computations.

    Both err, so it is twice the error of one.
    """
    exact = copy.deepcopy(model).double()
    logits, errors = exact(ids, stage), []
    for seed in range(DRAWS):
        with sdpa_kernel(SDPBackend.MATH), Rounding(seed):
            moved = exact(ids, stage)
        errors.append((moved - logits).abs().amax(-1))
    return 2 * torch.stack(errors).amax(0)
