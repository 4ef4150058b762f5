"""Root-mean-square normalisation of rows.

Knows: NumPy. Does not know: layers.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def rms_norm(x_TH: Any, weight_H: Any, eps: float) -> Any:
    """x / sqrt(mean(x^2) + eps) * weight, in float64, rounded once to float32 (Zhang and Sennrich 2019)."""
    wide = np.asarray(x_TH, dtype=np.float64)
    scale = 1.0 / np.sqrt(np.mean(wide * wide, axis=-1, keepdims=True) + eps)
    return (wide * scale * weight_H).astype(np.float32)
