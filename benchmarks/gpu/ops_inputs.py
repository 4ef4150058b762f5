"""Inputs of the comparisons: random arrays, weights and pages on a device, with what they stand for on the host.

Knows: NumPy, torch, the layouts of weights and pages. Does not know: kernels.

Legend: S sequences, T rows, Q query heads, G kv heads, D head_dim, P block_size, B blocks a table row.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from quire.kernels.reference.kv_cache import ReferenceKVCache
from quire.kernels.torch.pack import joined, quantized
from quire.kernels.torch.pages import PAGE_DTYPES, Pages
from quire.kernels.torch.weight import Weight

FLOATS = ("float32", "bfloat16", "float16")
ROWS = (1, 2, 3, 7, 16, 17, 33, 64, 65, 130)
FORMATS = (
    ("float32", 0, True), ("bfloat16", 0, True), ("float16", 0, True), ("int8", 0, True), ("int8", 64, True),
    ("fp8", 0, True), ("int4", 0, True), ("int4", 32, True), ("int4", 128, True), ("int4", 64, False),
)  # fmt: skip


def array(seed: int, *shape: int) -> np.ndarray:
    """Normal numbers, float32."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def on(where: torch.device, x: np.ndarray, dtype: str | None = None) -> torch.Tensor:
    """A copy of `x` on the device, rounded to `dtype`."""
    there = torch.from_numpy(np.ascontiguousarray(x)).to(where)
    return there if dtype is None else there.to(getattr(torch, dtype))


def host(x: torch.Tensor) -> np.ndarray:
    """A tensor's numbers, floats as float32."""
    return (x.float() if x.is_floating_point() else x).cpu().numpy()


def make_weight(where: torch.device, n: int, k: int, dtype: str, group_size: int = 0, symmetric: bool = True) -> Weight:
    """A random matrix in one of `FORMATS`."""
    matrix = on(where, array(n + k, n, k))
    if dtype in FLOATS:
        return joined([matrix], dtype)
    return quantized([matrix], dtype, group_size, symmetric)


@dataclass(frozen=True, slots=True)
class PagedCase:
    """Sequences as (queries, keys) in shuffled blocks, on the device and in the reference's cache."""

    q_TQD: torch.Tensor
    pages: Pages
    reference: ReferenceKVCache
    starts_S1: np.ndarray
    lens_S: np.ndarray
    tables_SB: np.ndarray
    scale: float

    def arguments(self, seqs: Sequence[int] | None = None) -> tuple[Any, ...]:
        """As an attention kernel takes them, of the sequences `seqs` alone; with room for what comes out."""
        chosen = list(range(len(self.lens_S))) if seqs is None else list(seqs)
        rows = np.concatenate([np.arange(self.starts_S1[seq], self.starts_S1[seq + 1]) for seq in chosen])
        counts = [int(self.starts_S1[seq + 1] - self.starts_S1[seq]) for seq in chosen]
        where = self.q_TQD.device
        q = self.q_TQD[on(where, rows.astype(np.int64))].contiguous()
        ints = [np.cumsum([0, *counts]), self.lens_S[chosen], self.tables_SB[chosen]]
        out = torch.full((len(q), q.shape[1] * q.shape[2]), torch.nan, dtype=q.dtype, device=where)
        return (q, self.pages, 1, *(on(where, each.astype(np.int32)) for each in ints), self.scale, out)


def paged_case(
    where: torch.device,
    seqs: Sequence[tuple[int, int]],
    heads: tuple[int, int, int],
    dtype: str,
    page_dtype: str,
    block_size: int = 16,
) -> PagedCase:
    """`heads` are query heads, kv heads and head_dim."""
    num_heads, num_kv_heads, head_dim = heads
    rng = np.random.default_rng(sum(keys for _, keys in seqs) + head_dim)
    widths = [-(-keys // block_size) for _, keys in seqs]
    order = rng.permutation(sum(widths) + 2).astype(np.int32)
    tables_SB = np.zeros((len(seqs), max(widths) + 1), np.int32)
    for row, width in enumerate(widths):
        tables_SB[row, :width], order = order[:width], order[width:]
    held = array(3, 2, 2, sum(widths) + 2, block_size, num_kv_heads, head_dim)
    scales = None
    data = torch.from_numpy(held)
    if page_dtype in ("int8", "fp8"):
        scales = torch.from_numpy(rng.uniform(0.01, 0.02, held.shape[:-1]).astype(np.float32))
        data = (data / scales[..., None]).clamp(-100, 100).round()
    data = data.to(PAGE_DTYPES[page_dtype])
    stored = data.float() if scales is None else data.float() * scales[..., None]
    reference = ReferenceKVCache(2, len(held[0, 0]), block_size, num_kv_heads, head_dim, "float32")
    reference.k_LBPGD, reference.v_LBPGD = stored[:, 0].numpy(), stored[:, 1].numpy()
    counts = [queries for queries, _ in seqs]
    pages = Pages(data.to(where), None if scales is None else scales.to(where))
    return PagedCase(
        on(where, array(4, sum(counts), num_heads, head_dim), dtype),
        pages,
        reference,
        np.cumsum([0, *counts]),
        np.array([keys for _, keys in seqs], np.int32),
        tables_SB,
        head_dim**-0.5,
    )


@functools.lru_cache(maxsize=4)
def held_weight(where: torch.device, n: int, k: int, dtype: str, group_size: int, symmetric: bool) -> Weight:
    """`make_weight`, for comparisons that come one after the other."""
    return make_weight(where, n, k, dtype, group_size, symmetric)
