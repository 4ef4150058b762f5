"""The paged cache of keys and values as tensors.

Knows: the layout that every torch and Triton kernel reads, and how a value is rounded. Does not know: who owns a block.

Legend: L layers, B blocks, P block_size, G kv heads, D head_dim, T tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

LEAST_SCALE = 2.0**-100
LARGEST = {"int8": 127.0, "fp8": 448.0}
PAGE_DTYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
    "int8": torch.int8,
    "fp8": torch.float8_e4m3fn,
}


@dataclass(frozen=True, slots=True)
class Pages:
    """`data` [L, 2, B, P, G, D]: keys are data[l, 0], values data[l, 1]; slot s is token s % P of block s // P.

    Of int8 and fp8 (e4m3) pages `scales` [L, 2, B, P, G] float32 has one factor for each token and head: what is
    stored is x / scale, with scale the head's largest / 127 or 448. Of other pages it is None.
    """

    data: Tensor
    scales: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of data and scales."""
        scales = 0 if self.scales is None else self.scales.nbytes
        return int(self.data.nbytes + scales)

    @property
    def block_size(self) -> int:
        """Tokens a block."""
        return int(self.data.shape[3])

    def store(self, layer: int, which: int, slots_T: Tensor, x_TGD: Tensor) -> None:
        """Write keys (`which` 0) or values (1), float32, to distinct slots."""
        pages_SGD = self.data[layer, which].flatten(0, 1)
        if self.scales is None:
            pages_SGD[slots_T] = x_TGD.to(pages_SGD.dtype)
            return
        q_TGD, scales_TG = rounded(x_TGD, self.data.dtype)
        pages_SGD.view(torch.uint8)[slots_T] = q_TGD.view(torch.uint8)  # fp8 has no indexed store of its own
        self.scales[layer, which].flatten(0, 1)[slots_T] = scales_TG

    def rows(self, layer: int, blocks: Tensor, num_tokens: int) -> tuple[Tensor, Tensor]:
        """(k, v), each [num_tokens, G, D] float32, of the sequence whose blocks these are, in order."""
        held = self.data[layer].view(torch.uint8)[:, blocks].view(self.data.dtype) if _is_narrow(self.data) else None
        pair = (self.data[layer][:, blocks] if held is None else held).flatten(1, 2)[:, :num_tokens].float()
        if self.scales is not None:
            pair = pair * self.scales[layer][:, blocks].flatten(1, 2)[:, :num_tokens, :, None]
        return pair[0], pair[1]

    def copy_blocks(self, sources: Tensor, destinations: Tensor) -> None:
        """Copy whole blocks in all layers; no destination is a source."""
        data = self.data.view(torch.uint8)
        data[:, :, destinations] = data[:, :, sources]
        if self.scales is not None:
            self.scales[:, :, destinations] = self.scales[:, :, sources]


def make_pages(
    device: torch.device,
    num_layers: int,
    num_blocks: int,
    block_size: int,
    num_kv_heads: int,
    head_dim: int,
    dtype: str,
) -> Pages:
    """Pages of zeros, on a CPU backed by memory only where they are written; `dtype` is a key of `PAGE_DTYPES`."""
    shape = (num_layers, 2, num_blocks, block_size, num_kv_heads, head_dim)
    scales = torch.zeros(shape[:-1], dtype=torch.float32, device=device) if dtype in LARGEST else None
    if device.type != "cpu":
        return Pages(torch.zeros(shape, dtype=PAGE_DTYPES[dtype], device=device), scales)
    held = np.zeros(math.prod(shape) * PAGE_DTYPES[dtype].itemsize, np.uint8)
    return Pages(torch.from_numpy(held).view(PAGE_DTYPES[dtype]).view(shape), scales)


def rounded(x_TGD: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(q, scale [T, G]) with q * scale ~ x for each head; a head that is not finite has a NaN scale."""
    largest = LARGEST["int8"] if dtype == torch.int8 else LARGEST["fp8"]
    finite_TG = torch.isfinite(x_TGD).all(dim=-1)
    top_TG = (x_TGD.abs().amax(dim=-1) / largest).clamp(min=LEAST_SCALE)
    scale_TG = torch.where(finite_TG, top_TG, 1.0)
    q_TGD = torch.where(finite_TG[..., None], x_TGD, 0.0) * (1.0 / scale_TG)[..., None]
    q_TGD = q_TGD.round().clamp(-largest, largest) if dtype == torch.int8 else q_TGD.clamp(-largest, largest)
    return q_TGD.to(dtype), torch.where(finite_TG, scale_TG, torch.nan)


def _is_narrow(data: Tensor) -> bool:
    return data.dtype == torch.float8_e4m3fn
