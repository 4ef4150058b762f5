"""Knows: what a paged key/value cache holds, as plain NumPy arrays. Does not know: the page layout of any kernel.

Legend: L layers, B blocks, P block_size, G kv heads, D head_dim.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]


def round_bf16(x: npt.ArrayLike) -> Float32:
    """The float32 values of `x` rounded to bfloat16, to nearest, ties to even (NaN stays NaN)."""
    x32 = np.asarray(x, dtype=np.float32)
    bits = x32.view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    return np.where(np.isnan(x32), np.float32(np.nan), rounded).astype(np.float32)


def round_int8(x_GD: npt.ArrayLike) -> Float32:
    """scale * integer in -127 to 127 for each head (the last axis); the scale is max|x| / 127, rounded up to bfloat16,
    at least 2^-100. NaN for a head that is not finite."""
    x = np.asarray(x_GD, dtype=np.float32)
    top = np.maximum(np.abs(x).max(axis=-1, keepdims=True) / np.float32(127), np.float32(2.0**-100))
    scale = ((top.view(np.uint32).astype(np.uint64) + 0xFFFF) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    finite = np.isfinite(x).all(axis=-1, keepdims=True)
    rounded = np.rint(np.where(finite, x, 0) * (1 / np.where(finite, scale, 1))).astype(np.float32)
    return np.asarray(np.where(finite, rounded * scale, np.nan), dtype=np.float32)


ROUND = {"bfloat16": round_bf16, "int8": round_int8, "float32": lambda x: np.asarray(x, dtype=np.float32)}


@dataclass(slots=True)
class ReferenceKVCache:
    """k_LBPGD and v_LBPGD in float32; every stored value is first rounded as `dtype` says (`ROUND`)."""

    num_layers: int
    num_blocks: int
    block_size: int
    num_kv_heads: int
    head_dim: int
    dtype: str
    k_LBPGD: Float32 = field(init=False)
    v_LBPGD: Float32 = field(init=False)

    def __post_init__(self) -> None:
        shape = (self.num_layers, self.num_blocks, self.block_size, self.num_kv_heads, self.head_dim)
        self.k_LBPGD = np.full(shape, np.nan, dtype=np.float32)
        self.v_LBPGD = np.full(shape, np.nan, dtype=np.float32)

    def round(self, x: npt.ArrayLike) -> Float32:
        """`x` as this cache would store it."""
        return ROUND[self.dtype](x)

    def store(self, layer: int, slot: int, k_GD: Float32, v_GD: Float32) -> None:
        """Write one token's keys and values to `slot` = block * block_size + offset."""
        block, offset = divmod(slot, self.block_size)
        self.k_LBPGD[layer, block, offset] = self.round(k_GD)
        self.v_LBPGD[layer, block, offset] = self.round(v_GD)

    def rows(self, layer: int, block_table: npt.NDArray[np.int32], num_tokens: int) -> tuple[Float32, Float32]:
        """(k, v), each [num_tokens, G, D], of the sequence that `block_table` describes."""
        positions = np.arange(num_tokens)
        blocks, offsets = block_table[positions // self.block_size], positions % self.block_size
        return self.k_LBPGD[layer, blocks, offsets], self.v_LBPGD[layer, blocks, offsets]

    def copy_blocks(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Copy whole blocks, all layers: (source, destination), in order."""
        for source, destination in pairs:
            self.k_LBPGD[:, destination] = self.k_LBPGD[:, source]
            self.v_LBPGD[:, destination] = self.v_LBPGD[:, source]

    def read(self, layer: int, block: int) -> tuple[Float32, Float32]:
        """(k, v), each [block_size, G, D]."""
        return self.k_LBPGD[layer, block].copy(), self.v_LBPGD[layer, block].copy()
