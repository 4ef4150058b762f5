"""Chosen rows of an array.

Knows: its contract. Does not know: why these rows.
"""

from __future__ import annotations

from typing import Any

from quire.ops.device import Device


def gather_rows(device: Device, x_TH: Any, rows_R: Any, out_RH: Any) -> None:
    """out[r, :] = x[rows[r], :]; rows int32 in [0, T), x and out float32, contiguous; no overlap.

    Raises TypeError for another type or layout, ValueError for shapes that do not fit or a row out of range.
    """
    device.kernels.gather_rows(x_TH, rows_R, out_RH)
