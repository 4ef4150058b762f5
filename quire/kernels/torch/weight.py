"""A weight matrix on a torch device: rows of numbers, row-major, with scales where they are rounded.

Knows: the layout that every torch and Triton product reads. Does not know: names of weights, files.

Legend: N outputs, K inputs, C groups of inputs a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

INT32 = torch.int32
TORCH_DTYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
    "int8": torch.int8,
    "int4": torch.uint8,
    "fp8": torch.float8_e4m3fn,
}


@dataclass(frozen=True, slots=True)
class Weight:
    """A matrix [n, k].

    `dtype` is a key of `TORCH_DTYPES`. `data` is [N, K], for int4 [N, ceil(K / 2)] uint8: input 2j in the low half of
    byte j, 2j + 1 in the high half. `scales_NC` and `offsets_NC` are bfloat16, one for each `group_size` successive
    inputs (0: one a row; the last group may be shorter). What an element stands for:
    int8 and fp8 (e4m3): scale * q; int4: scale * (q - 8), with offsets scale * q + offset, q in 0..15.
    """

    data: Tensor
    dtype: str
    n: int
    k: int
    scales_NC: Tensor | None = None
    offsets_NC: Tensor | None = None
    group_size: int = 0

    @property
    def symmetric(self) -> bool:
        """False for int4 with offsets."""
        return self.offsets_NC is None

    @property
    def nbytes(self) -> int:
        """Bytes that a product reads."""
        parts = (self.data, self.scales_NC, self.offsets_NC)
        return sum(part.numel() * part.element_size() for part in parts if part is not None)

    def rows(self, ids_T: Tensor | None = None) -> Tensor:
        """float32 [T, K]: the rows `ids_T`, or all of them, as the products see them."""
        data, scales, offsets = (
            part if part is None or ids_T is None else part[ids_T]
            for part in (self.data, self.scales_NC, self.offsets_NC)
        )
        assert data is not None
        if scales is None:
            return data.float()
        q_TK = unpack_int4(data, self.k) if self.dtype == "int4" else data.float()
        if self.dtype == "int4" and offsets is None:
            q_TK = q_TK - 8.0
        wide_TK = _spread(scales, self.group_size, self.k) * q_TK
        return wide_TK if offsets is None else wide_TK + _spread(offsets, self.group_size, self.k)


def pack_int4(q_NK: Tensor) -> Tensor:
    """uint8 [N, ceil(K / 2)] of numbers 0..15; an odd K is filled up with 0."""
    low_NK, high_NK = q_NK[:, 0::2].to(torch.uint8), q_NK[:, 1::2].to(torch.uint8)
    if high_NK.shape[1] < low_NK.shape[1]:
        high_NK = torch.nn.functional.pad(high_NK, (0, 1))
    return low_NK | (high_NK << 4)


def unpack_int4(bytes_NK2: Tensor, num_inputs: int) -> Tensor:
    """float32 [N, K] of the numbers 0..15 in `bytes_NK2`."""
    pairs = torch.stack([bytes_NK2 & 15, bytes_NK2 >> 4], dim=-1)
    return pairs.reshape(len(bytes_NK2), -1)[:, :num_inputs].float()


def _spread(scales_TC: Tensor, group_size: int, num_inputs: int) -> Tensor:
    """float32, of a width that multiplies [T, K]."""
    if group_size == 0:
        return scales_TC.float()
    return scales_TC.float().repeat_interleave(group_size, dim=1)[:, :num_inputs]
