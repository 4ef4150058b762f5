"""Chosen rows.

Knows: torch. Does not know: why these rows.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gather_rows(x_TH: Tensor, rows_R: Tensor, out_RH: Tensor) -> None:
    """out[r] = x[rows[r]]; rows int32."""
    torch.index_select(x_TH, 0, rows_R, out=out_RH)
