"""Functions that several kernels share, all in float32."""

from __future__ import annotations

import triton
import triton.language as tl

SMALLEST = tl.constexpr(2.0**-126)
"""The smallest normal float32, which keeps the scale of a row of zeros finite; any smaller one would be a float64."""


INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def add_product(total, a, b):
    """total + a b on the tensor cores; float32 is not rounded to fewer digits."""
    if INTERPRETED:  # there the product of bfloat16 matrices is one of their bits, taken for integers
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, total, input_precision="ieee")


@triton.jit
def segment_bounds(bounds, segment, ALIGNMENT: tl.constexpr):
    """Start and stop of its columns."""
    start, stop = tl.load(bounds + segment), tl.load(bounds + segment + 1)
    return tl.multiple_of(start, ALIGNMENT), tl.multiple_of(stop, ALIGNMENT)


@triton.jit
def gelu(x):
    """Exact: x Phi(x) by the error function."""
    return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
