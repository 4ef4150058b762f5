"""The gated activation of a SwiGLU network.

Knows: NumPy. Does not know: layers.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def silu_mul(gate_up_T2I: Any) -> Any:
    """g / (1 + exp(-g)) * u, g the first and u the second half of the columns, in float64 (Shazeer 2020)."""
    gate, up = np.split(np.asarray(gate_up_T2I, dtype=np.float64), 2, axis=-1)
    with np.errstate(over="ignore", invalid="ignore"):
        return (gate / (1.0 + np.exp(-gate)) * up).astype(np.float32)
