"""Root-mean-square normalisation of rows.

Knows: torch. Does not know: layers.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rms_norm(x_TH: Tensor, weight_H: Tensor, eps: float, out_TH: Tensor) -> None:
    """The contract of `ops/rms_norm.py`; x and out of any float dtype, weight float32, computed in float32."""
    out_TH.copy_(normed(x_TH, weight_H, eps))


def normed(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis, float32."""
    wide = x.float()
    return wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps) * weight
