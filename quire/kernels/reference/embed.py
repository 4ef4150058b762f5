"""Rows of an embedding matrix.

Knows: NumPy. Does not know: packing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from quire.kernels.reference.bf16 import round_to_bf16


def embed(ids_T: Any, weight_VH: Any, dtype: str) -> Any:
    """W[ids] as float32, rounded to bfloat16 first where dtype is "bfloat16"."""
    weight_VH = np.asarray(weight_VH, dtype=np.float32)
    return (round_to_bf16(weight_VH) if dtype == "bfloat16" else weight_VH)[ids_T]
