"""The gated activation of a SwiGLU network.

Knows: torch. Does not know: layers.
"""

from __future__ import annotations

import torch
from torch import Tensor


def silu_mul(gate_up_T2I: Tensor, out_TI: Tensor) -> None:
    """The contract of `ops/silu_mul.py`; any float dtype, computed in float32."""
    out_TI.copy_(gated(gate_up_T2I))


def gated(gate_up_T2I: Tensor) -> Tensor:
    """silu(gate) * up, float32."""
    gate_TI, up_TI = gate_up_T2I.float().chunk(2, dim=-1)
    return torch.nn.functional.silu(gate_TI) * up_TI
