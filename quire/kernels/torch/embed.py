"""Rows of an embedding matrix.

Knows: the weight's layout. Does not know: tokens' text.
"""

from __future__ import annotations

from torch import Tensor

from quire.kernels.torch.weight import Weight


def embed(ids_T: Tensor, weight: Weight, out_TH: Tensor) -> None:
    """out[t] = W[ids[t]]; ids int32, out of any float dtype."""
    out_TH.copy_(weight.data[ids_T] if weight.scales_NC is None else weight.rows(ids_T))
