"""The product of rows with a weight matrix.

Knows: NumPy. Does not know: packing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from quire.kernels.reference.bf16 import round_to_bf16


def linear(x_TK: Any, weight_NK: Any, dtype: str, bias_N: Any | None = None, old_TN: Any | None = None) -> Any:
    """x W^T (+ bias) (+ old), summed in float64 and rounded once to float32.

    dtype "bfloat16": both operands are rounded to bfloat16 first; "float32": neither is.
    """
    x_TK, weight_NK = (_operand(array, dtype) for array in (x_TK, weight_NK))
    out_TN = x_TK @ weight_NK.T
    if bias_N is not None:
        out_TN = out_TN + bias_N
    if old_TN is not None:
        out_TN = out_TN + old_TN
    return out_TN.astype(np.float32)


def _operand(array: Any, dtype: str) -> Any:
    rounded = round_to_bf16(array) if dtype == "bfloat16" else np.asarray(array, dtype=np.float32)
    return rounded.astype(np.float64)


def magnitude(x_TK: Any, weight_NK: Any) -> Any:
    """|x| |W|^T: the scale of the rounding error of a sum taken in any order."""
    return np.abs(x_TK).astype(np.float64) @ np.abs(weight_NK).astype(np.float64).T
