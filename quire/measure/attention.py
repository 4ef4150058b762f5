"""Cases of attention and of storing keys and values: decoding batches, prompts, chunks.

Knows: how a cache is filled that must come from DRAM at every call. Does not know: clocks, tables.

Legend: T tokens, S sequences, Q query heads, G kv heads, D head_dim, N = (Q + 2G) * D.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from quire.measure.shapes import Shape
from quire.measure.timing import Case
from quire.ops.attention import attention
from quire.ops.device import Device
from quire.ops.kv_cache import KVCache, block_nbytes
from quire.ops.rope_store import rope_store

BLOCK = 16
FILL_ROWS = 1024  # tokens stored by one call while a cache is filled


@dataclass(frozen=True, slots=True)
class Batch:
    """`num_seqs` sequences of `seq_len` tokens, of which the last `num_new` are computed."""

    name: str
    num_seqs: int
    seq_len: int
    num_new: int


BATCHES = (
    Batch("decode", 1, 512, 1),
    Batch("decode", 1, 4096, 1),
    Batch("decode", 8, 1024, 1),
    Batch("decode", 32, 1024, 1),
    Batch("prompt", 1, 512, 512),
    Batch("prompt", 1, 2048, 2048),
    Batch("chunk", 1, 2048, 512),
)


def attention_cases(device: Device, shape: Shape, kv_dtypes: tuple[str, ...], stream_bytes: int) -> Iterator[Case]:
    """Every batch with every format of the cache; decoding reads `stream_bytes` before it comes round again."""
    for batch in BATCHES:
        for dtype in kv_dtypes:
            yield _attention_case(device, shape, batch, dtype, stream_bytes)


def store_cases(device: Device, shape: Shape, kv_dtypes: tuple[str, ...]) -> Iterator[Case]:
    """Storing the keys and values of 1, 32 and 512 tokens, rotated and normalised as the model does."""
    for dtype in kv_dtypes:
        for num_rows in (1, 32, 512):
            yield _store_case(device, shape, num_rows, dtype)


def _attention_case(device: Device, shape: Shape, batch: Batch, dtype: str, stream_bytes: int) -> Case:
    blocks_each = -(-batch.seq_len // BLOCK)
    layer_bytes = batch.num_seqs * blocks_each * _block_bytes(shape, dtype)
    num_layers = -(-stream_bytes // layer_bytes) if batch.num_new == 1 else 1
    kv = KVCache(num_layers, batch.num_seqs * blocks_each, BLOCK, shape.num_kv_heads, shape.head_dim, dtype)
    _fill(device, shape, kv)
    rng = np.random.default_rng(2)
    num_rows = batch.num_seqs * batch.num_new
    q_TQD = rng.standard_normal((num_rows, shape.num_heads, shape.head_dim), np.float32)
    out_TN = np.zeros((num_rows, shape.num_heads * shape.head_dim), np.float32)
    starts_S1 = np.arange(batch.num_seqs + 1, dtype=np.int32) * np.int32(batch.num_new)
    lens_S = np.full(batch.num_seqs, batch.seq_len, np.int32)
    tables_SB = np.arange(batch.num_seqs * blocks_each, dtype=np.int32).reshape(batch.num_seqs, blocks_each)
    scale = shape.head_dim**-0.5

    def run(number: int) -> None:
        attention(device, q_TQD, kv, number % num_layers, starts_S1, lens_S, tables_SB, scale, out_TN)

    pairs = batch.num_seqs * (batch.num_new * batch.seq_len - batch.num_new * (batch.num_new - 1) // 2)
    num_ops = 4 * pairs * shape.num_heads * shape.head_dim
    detail = f"{batch.name} {batch.num_seqs} x {batch.seq_len}"
    kind = "float32" if dtype == "float32" else "bfloat16"
    return Case("attention", detail, num_rows, dtype, layer_bytes + 2 * q_TQD.nbytes, num_ops, kind, run)


def _store_case(device: Device, shape: Shape, num_rows: int, dtype: str) -> Case:
    num_blocks = -(-num_rows // BLOCK)
    kv = KVCache(1, num_blocks, BLOCK, shape.num_kv_heads, shape.head_dim, dtype)
    store = _Store(device, shape, kv, num_rows)
    num_bytes = store.qkv_TN.nbytes + store.q_TQD.nbytes + num_rows * _block_bytes(shape, dtype) // BLOCK
    return Case("rope_store", "", num_rows, dtype, num_bytes, 0, "float32", lambda number: store(0, 0), cached=True)


class _Store:
    """Random keys and values for `num_rows` successive slots."""

    def __init__(self, device: Device, shape: Shape, kv: KVCache, num_rows: int) -> None:
        rng = np.random.default_rng(3)
        self.device, self.kv, self.shape = device, kv, shape
        self.qkv_TN = rng.standard_normal((num_rows, shape.qkv_size), np.float32)
        self.q_TQD = np.zeros((num_rows, shape.num_heads, shape.head_dim), np.float32)
        self.rows_T = np.arange(num_rows, dtype=np.int32)
        angles_PD2 = rng.random((num_rows, shape.head_dim // 2), np.float32)
        self.cos_PD2, self.sin_PD2 = np.cos(angles_PD2), np.sin(angles_PD2)
        self.norm_D = np.ones(shape.head_dim, np.float32) if shape.qk_norm else None

    def __call__(self, layer: int, first_slot: int) -> None:
        norm_D = self.norm_D
        rope_store(
            self.device, self.qkv_TN, self.rows_T, self.rows_T + np.int32(first_slot), self.cos_PD2, self.sin_PD2,
            self.kv, layer, norm_D, norm_D, 1e-6, self.q_TQD,
        )  # fmt: skip


def _fill(device: Device, shape: Shape, kv: KVCache) -> None:
    """Every slot of every layer: memory that was never written would be read from one page of zeros."""
    num_slots = kv.num_blocks * BLOCK
    store = _Store(device, shape, kv, min(FILL_ROWS, num_slots))
    rows = len(store.rows_T)
    for layer in range(kv.num_layers):
        for first in [*range(0, num_slots - rows, rows), num_slots - rows]:
            store(layer, first)


def _block_bytes(shape: Shape, dtype: str) -> int:
    return block_nbytes(1, BLOCK, shape.num_kv_heads, shape.head_dim, dtype)
