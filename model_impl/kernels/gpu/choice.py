"""The choice of kernels for a Pattention of given sizes.

| rows T      | way     | what runs                                                                               |
|-------------|---------|-----------------------------------------------------------------------------------------|
| up to 16    | `fused` | scores with sums of squares; values with norm and GELU of their inputs, split over n    |
| 17 and more | `gemm`  | cuBLAS, the row operation, cuBLAS                                                       |
| 512 or more | `gram`  | the norm from x K^T K x^T; scores with norm and GELU behind them; cuBLAS. Only where the|
|             |         | formula below says that it wins: many tokens, and a narrow model                        |

With few rows a Pattention costs the bandwidth of its weights and its launches. `fused` saves one launch. Every block of
output columns applies the GELU again, which costs nothing beside the weights. With many rows it would cost more than
the product itself: an exact GELU is some 25 operations outside the tensor cores. There the row operation is a separate
pass, which reads and writes 4 bytes per token. `gram` saves that pass for 2 d^2 operations and a GEMM of ours instead
of cuBLAS's. With few rows `gram` loses: its matrices are d / 2n more weights to read. A single kernel, as in flash
attention, would hold outputs [rows, d] in registers. At the released widths of 768 to 1536 only a few rows fit, and
reading all weights again for every few rows costs more than the scores.

Predicted from data sheets, not measured: `python -m loadtest.kernels` measures all three on the GPU at hand.

Accuracy of the Gram form on the trained demo model: its error of ||s||^2 is at most 1.7e-3 in bfloat16 and 2e-4 in
float16, below the error of scores that are rounded to the same dtype (3.3e-3 and 6e-4).
"""

from __future__ import annotations

from typing import Literal

Way = Literal["fused", "gemm", "gram"]

FUSED_ROWS = 16
"""One tile of the tensor cores."""

GRAM_ROWS = 512

FEW_COLUMNS, MANY_COLUMNS = 32, 128
"""Columns of a tile of scores. Small tiles keep more of the GPU busy where a few rows wait for the weights."""

OPERATIONS_PER_BYTE = 180
"""The rate of 16-bit GEMMs over the memory bandwidth: 600 TFLOP/s and 3.35 TB/s of an H100; an A100 is similar."""

SLOWER = 0.1
"""The assumed share of its time that our GEMM loses to cuBLAS's."""


def choose(rows: int, tokens: int, width: int, has_grams: bool) -> Way:
    """The way for x [rows, width] and `tokens` parameter tokens in each segment, on average."""
    if rows <= FUSED_ROWS:
        return "fused"
    return "gram" if has_grams and rows >= GRAM_ROWS and gram_wins(tokens, width) else "gemm"


def gram_wins(tokens: int, width: int) -> bool:
    """Whether writing and reading the scores once costs more than x K^T K x^T, per row."""
    saved = 4 * tokens * OPERATIONS_PER_BYTE
    return saved > 2 * width**2 + SLOWER * 2 * tokens * width
