"""The paged key/value cache.

Knows: its sizes and the copies of its blocks. Does not know: who owns a block, or how a page looks.

Legend: P block_size, G kv heads, D head_dim.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from quire.kernels.cpu.native import _cpu

DTYPES = ("bfloat16", "float32", "int8")
AHEAD_TOKENS = 8192  # that an idle engine keeps room for: 32 answers of 256 (decision 032)
AHEAD_BYTES = 2**30  # at most


class KVCache:
    """Pages of keys and values of every layer: `num_blocks` blocks of `block_size` tokens.

    `block_size` is 16, 32, ... 128; `head_dim` even, 2 to 256; `dtype` "bfloat16", "float32" or "int8": integers with a
    bfloat16 scale for the keys and one for the values of each token and kv head. The memory is reserved at once and
    becomes resident as blocks are first written, or before (`keep_ahead`); a block lies in one piece (all layers), so
    blocks handed out in ascending order touch little more than they use. A slot that was never written holds anything.
    Raises ValueError for a size out of range or too large to count, MemoryError when the system refuses the
    reservation.
    """

    __slots__ = ("block_size", "dtype", "head_dim", "num_blocks", "num_kv_heads", "num_layers", "pages")

    def __init__(
        self,
        num_layers: int,
        num_blocks: int,
        block_size: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: str = "bfloat16",
    ) -> None:
        self.pages: Any = _cpu.KVCache(num_layers, num_blocks, block_size, num_kv_heads, head_dim, dtype)
        self.num_layers, self.num_blocks, self.block_size = num_layers, num_blocks, block_size
        self.num_kv_heads, self.head_dim, self.dtype = num_kv_heads, head_dim, dtype

    @property
    def nbytes(self) -> int:
        """Bytes of address space; resident are those of blocks once written."""
        return int(self.pages.nbytes)

    @property
    def block_nbytes(self) -> int:
        """Bytes of one block: keys and values of all layers, with the padding of head_dim for values to 16
        (for int8 keys to 4) and the scales of int8."""
        return int(self.pages.block_nbytes)

    def keep_ahead(self, num_blocks: int) -> None:
        """From now on as many blocks behind the last one ever written are made resident beforehand, while cores have
        nothing else to do: the first write to new memory is slow (decision 032). Once; 0 does nothing."""
        self.pages.keep_ahead(num_blocks)

    @property
    def num_ready(self) -> int:
        """Blocks, from the first on, that were written or made resident by `keep_ahead`; 0 without it."""
        return int(self.pages.num_ready)

    def copy_blocks(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Copy whole blocks in all layers: (source, destination), in order. ValueError, and no copy, for an unknown
        block."""
        self.pages.copy_blocks(np.array(list(pairs), dtype=np.int64).reshape(-1, 2))

    def read(self, layer: int, block: int) -> tuple[Any, Any]:
        """(k, v) of a block as new float32 arrays [P, G, D]; slow, for tests. ValueError when out of range."""
        k_PGD, v_PGD = self.pages.read(layer, block)
        return k_PGD, v_PGD


def blocks_ahead(kv: KVCache) -> int:
    """How many blocks an engine keeps resident beyond those that it has written."""
    return min(AHEAD_TOKENS // kv.block_size, AHEAD_BYTES // kv.block_nbytes)


def block_nbytes(num_layers: int, block_size: int, num_kv_heads: int, head_dim: int, dtype: str) -> int:
    """Bytes of one block of such a cache, without making one large enough to matter."""
    return KVCache(num_layers, 1, block_size, num_kv_heads, head_dim, dtype).block_nbytes
