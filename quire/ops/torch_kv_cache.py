"""The paged cache on a torch device, with the methods of `ops/kv_cache.py`.

Knows: its sizes and the copies of its blocks. Does not know: who owns a block. Loaded with a torch device only.

Legend: L layers, B blocks, P block_size, G kv heads, D head_dim.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from quire.kernels.torch.pages import PAGE_DTYPES, make_pages
from quire.ops.kv_cache import KVCache
from quire.ops.torch_device import TorchDevice


class TorchKVCache(KVCache):
    """Pages as one tensor, taken whole when it is made: nothing is reserved for later. `dtype` is bfloat16, float16,
    float32, int8 or fp8 (see `kernels/torch/pages.py`)."""

    __slots__ = ("_device",)

    def __init__(
        self,
        device: TorchDevice,
        num_layers: int,
        num_blocks: int,
        block_size: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: str = "bfloat16",
    ) -> None:
        if dtype not in PAGE_DTYPES:
            raise ValueError(f"a torch cache has no pages of {dtype!r}, only {', '.join(PAGE_DTYPES)}")
        self._device = device
        self.pages: Any = make_pages(device.torch, num_layers, num_blocks, block_size, num_kv_heads, head_dim, dtype)
        self.num_layers, self.num_blocks, self.block_size = num_layers, num_blocks, block_size
        self.num_kv_heads, self.head_dim, self.dtype = num_kv_heads, head_dim, dtype

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return int(self.pages.nbytes)

    @property
    def block_nbytes(self) -> int:
        """Bytes of one block: keys and values of all layers, and their scales."""
        return int(self.pages.nbytes) // self.num_blocks

    def copy_blocks(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Copy whole blocks in all layers, in order. ValueError, and no copy, for an unknown block."""
        listed = [(int(source), int(destination)) for source, destination in pairs]
        if any(not 0 <= block < self.num_blocks for pair in listed for block in pair):
            raise ValueError(f"a block to be copied is outside 0..{self.num_blocks - 1}: {listed}")
        for chunk in _independent(listed):
            sources, destinations = self._device.put(np.array(chunk, np.int64).T.copy())
            self.pages.copy_blocks(sources, destinations)

    def read(self, layer: int, block: int) -> tuple[Any, Any]:
        """(k, v) of a block as new float32 arrays [P, G, D]; for tests. ValueError when out of range."""
        if not (0 <= layer < self.num_layers and 0 <= block < self.num_blocks):
            raise ValueError(f"there is no block {block} of layer {layer}")
        k_PGD, v_PGD = self.pages.rows(layer, self._device.put(np.array([block], np.int64)), self.block_size)
        return self._device.fetch(k_PGD).copy(), self._device.fetch(v_PGD).copy()


def _independent(pairs: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Runs of pairs that may be copied at once: none reads or writes what another one of its run wrote."""
    runs: list[list[tuple[int, int]]] = []
    written: set[int] = set()
    read: set[int] = set()
    for source, destination in pairs:
        if not runs or source in written or destination in written or destination in read:
            runs.append([])
            written, read = set(), set()
        runs[-1].append((source, destination))
        written.add(destination)
        read.add(source)
    return runs
