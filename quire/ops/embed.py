"""Rows of an embedding matrix, from packed weights.

Knows: its contract. Does not know: tokens' text.
"""

from __future__ import annotations

from typing import Any

from quire.ops.device import Device
from quire.ops.linear import PackedWeight


def embed(device: Device, ids_T: Any, weight: PackedWeight, out_TH: Any) -> None:
    """out[t, h] = W[ids[t], h]; ids int32 in [0, n), out float32.

    The weight may be the head's: a tied matrix is kept once.

    Raises TypeError for another type or layout, ValueError for shapes that do not fit or an id out of range.
    """
    device.kernels.embed(ids_T, weight, out_TH)
