"""Root-mean-square normalisation of rows.

Knows: its contract. Does not know: which layer it stands in.
"""

from __future__ import annotations

from typing import Any

from quire.ops.device import Device


def rms_norm(device: Device, x_TH: Any, weight_H: Any, eps: float, out_TH: Any) -> None:
    """out[t, h] = x[t, h] / sqrt(mean_h(x[t, h]^2) + eps) * weight[h]; all float32, contiguous; out may be x.

    Raises TypeError for another type or layout, ValueError for shapes that do not fit. Source: Zhang and Sennrich 2019.
    """
    device.kernels.rms_norm(x_TH, weight_H, eps, out_TH)
