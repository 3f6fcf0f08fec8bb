"""Which way a Pattention of given sizes takes through the kernels.

| rows T      | way     | what runs                                                                               |
|-------------|---------|-----------------------------------------------------------------------------------------|
| up to 16    | `fused` | scores with sums of squares; values with norm and GELU of their inputs, split over n    |
| 17 and more | `gemm`  | cuBLAS, the row operation, cuBLAS                                                       |
| 512 or more | `gram`  | the norm from x K^T K x^T; scores with norm and GELU behind them; cuBLAS. Only where the|
|             |         | formula below says that it wins: many tokens, and a narrow model                        |

With few rows a Pattention costs the bandwidth of its weights and its launches. `fused` spares one of these, and that
every block of output columns applies the GELU anew costs nothing beside the weights. With many rows it would cost more
than the product itself: an exact GELU is some 25 operations outside the tensor cores. There the row operation is a pass
of its own, which reads and writes 4 bytes per token; `gram` spares it for 2 d^2 operations and a GEMM of ours instead
of cuBLAS's. With few rows `gram` loses: its matrices are d / 2n more weights to read. One kernel for everything, as
flash attention is, would hold outputs [rows, d] in registers: at the released widths of 768 to 1536 so few rows fit
that reading all weights again for every few of them costs more than the scores.

Predicted from data sheets, not measured: `python -m loadtest.kernels` measures all three on the GPU at hand.

How exact the Gram form is, on the trained demo model: its ||s||^2 is off by at most 1.7e-3 in bfloat16 and 2e-4 in
float16, less than what comes of scores that are rounded to the same dtype (3.3e-3 and 6e-4).
"""

from __future__ import annotations

from typing import Literal

Way = Literal["fused", "gemm", "gram"]

FUSED_ROWS = 16
"""One tile of the tensor cores."""

GRAM_ROWS = 512

FEW_COLUMNS, MANY_COLUMNS = 32, 128
"""Of a tile of scores: small ones keep more of the GPU busy where a few rows have to wait for the weights."""

OPERATIONS_PER_BYTE = 180
"""What 16-bit GEMMs reach, by what memory reaches: an H100's 600 TFLOP/s and 3.35 TB/s; an A100 has about as many."""

SLOWER = 0.1
"""Which part of its time our GEMM is taken to lose to cuBLAS's."""


def choose(rows: int, tokens: int, width: int, has_grams: bool) -> Way:
    """For x [rows, width] and `tokens` parameter tokens in each segment, on average."""
    if rows <= FUSED_ROWS:
        return "fused"
    return "gram" if has_grams and rows >= GRAM_ROWS and gram_wins(tokens, width) else "gemm"


def gram_wins(tokens: int, width: int) -> bool:
    """Whether writing and reading the scores once costs more than x K^T K x^T, per row."""
    saved = 4 * tokens * OPERATIONS_PER_BYTE
    return saved > 2 * width**2 + SLOWER * 2 * tokens * width
