"""The gated activation of a SwiGLU network.

Knows: its contract. Does not know: which layer it stands in.
"""

from __future__ import annotations

from typing import Any

from quire.ops.device import Device


def silu_mul(device: Device, gate_up_T2I: Any, out_TI: Any) -> None:
    """out[t, i] = g / (1 + exp(-g)) * u with g = gate_up[t, i], u = gate_up[t, I + i]; float32, contiguous; no overlap.

    Raises TypeError for another type or layout, ValueError for shapes that do not fit. Source: Shazeer 2020, SwiGLU.
    """
    device.kernels.silu_mul(gate_up_T2I, out_TI)
