"""Paged attention, under the interpreter, against the reference, and its bits against its own in other company."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from quire.kernels.reference.attention import attention as reference_attention  # noqa: E402
from quire.kernels.reference.kv_cache import ReferenceKVCache  # noqa: E402
from quire.kernels.torch.pages import PAGE_DTYPES, Pages  # noqa: E402
from quire.kernels.triton import attention as triton_attention  # noqa: E402
from quire.kernels.triton import tiles  # noqa: E402
from quire.kernels.triton.attention import attention  # noqa: E402

pytestmark = pytest.mark.triton
TOLERANCE = {"float32": 2e-5, "float16": 4e-3, "bfloat16": 2e-2}


@dataclass(frozen=True)
class Case:
    """Sequences as (queries, keys) with their pages in shuffled blocks, and the same in the reference's cache."""

    q: torch.Tensor
    pages: Pages
    expected_pages: ReferenceKVCache
    starts: np.ndarray
    lens: np.ndarray
    tables: np.ndarray

    def run(self, seqs: list[int] | None = None, **options: object) -> list[np.ndarray]:
        """Outputs of the sequences `seqs`, in that order, as one step."""
        chosen = list(range(len(self.lens))) if seqs is None else seqs
        rows = [np.arange(self.starts[seq], self.starts[seq + 1]) for seq in chosen]
        q = self.q[np.concatenate(rows)] if rows else self.q[:0]
        starts = np.cumsum([0, *map(len, rows)]).astype(np.int32)
        out = torch.full((len(q), q.shape[1] * q.shape[2]), torch.nan, dtype=q.dtype)
        ints = [torch.from_numpy(np.ascontiguousarray(x)) for x in (starts, self.lens[chosen], self.tables[chosen])]
        attention(q, self.pages, 1, *ints, q.shape[2] ** -0.5, out, **options)
        return [out[a:b].float().numpy() for a, b in pairwise(starts)]

    def expected(self) -> np.ndarray:
        """What the reference makes of all sequences, from the values as the pages hold them."""
        out = np.empty((len(self.q), self.q.shape[1] * self.q.shape[2]), np.float32)
        arrays = self.starts, self.lens, self.tables
        q = self.q.float().numpy()
        reference_attention(q, self.expected_pages, 1, *arrays, self.q.shape[2] ** -0.5, out)
        return out


def make_case(
    seqs: list[tuple[int, int]],
    heads: tuple[int, int, int],
    dtype: str = "float32",
    page_dtype: str = "float32",
    block_size: int = 16,
) -> Case:
    num_heads, num_kv_heads, head_dim = heads
    rng = np.random.default_rng(sum(keys for _, keys in seqs) + head_dim)
    widths = [-(-keys // block_size) for _, keys in seqs]
    num_blocks = sum(widths) + 2
    order = rng.permutation(num_blocks).astype(np.int32)
    tables = np.full((len(seqs), max(widths, default=0) + 1), -(2**30), np.int32)  # what lies beyond is not looked at
    for row, width in enumerate(widths):
        tables[row, :width], order = order[:width], order[width:]
    held = rng.standard_normal((2, 2, num_blocks, block_size, num_kv_heads, head_dim)).astype(np.float32)
    scales = None
    data = torch.from_numpy(held)
    if page_dtype in ("int8", "fp8"):
        scales = torch.from_numpy(rng.uniform(0.01, 0.02, held.shape[:-1]).astype(np.float32))
        data = (data / scales[..., None]).clamp(-100, 100).round()
    data = data.to(PAGE_DTYPES[page_dtype])
    stored = data.float() if scales is None else data.float() * scales[..., None]
    expected = ReferenceKVCache(2, num_blocks, block_size, num_kv_heads, head_dim, "float32")
    expected.k_LBPGD, expected.v_LBPGD = stored[:, 0].numpy(), stored[:, 1].numpy()
    counts = [queries for queries, _ in seqs]
    q = torch.from_numpy(rng.standard_normal((sum(counts), num_heads, head_dim)).astype(np.float32))
    starts = np.cumsum([0, *counts]).astype(np.int32)
    lens = np.array([keys for _, keys in seqs], np.int32)
    return Case(q.to(getattr(torch, dtype)), Pages(data, scales), expected, starts, lens, tables)


def check(case: Case, dtype: str = "float32", **options: object) -> None:
    found = np.concatenate(case.run(**options))
    np.testing.assert_allclose(found, case.expected(), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


MIXED = [(1, 1), (5, 5), (1, 40), (33, 50), (2, 17)]


@pytest.mark.parametrize("heads", [(2, 2, 64), (4, 2, 80), (8, 2, 96), (7, 1, 128), (8, 1, 256), (14, 2, 64)])
def test_mixed_steps_of_every_ratio_and_head_size(heads: tuple[int, int, int]) -> None:
    check(make_case(MIXED, heads))


@pytest.mark.parametrize("seqs", [[(1, 1)], [(1, 33)], [(3, 3), (1, 16)], [(1, 7)] * 17])
def test_small_steps(seqs: list[tuple[int, int]]) -> None:
    check(make_case(seqs, (4, 2, 16)))


@pytest.mark.parametrize(("dtype", "page_dtype"), [("bfloat16", "bfloat16"), ("float16", "float16")])
def test_narrow_floats(dtype: str, page_dtype: str) -> None:
    check(make_case(MIXED, (4, 1, 64), dtype, page_dtype), dtype)


@pytest.mark.parametrize("page_dtype", ["int8", "fp8"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rounded_pages_are_widened_on_the_way(page_dtype: str, dtype: str) -> None:
    check(make_case(MIXED, (4, 2, 64), dtype, page_dtype), dtype)


@pytest.mark.parametrize("block_size", [16, 32, 128])
def test_blocks_of_any_size(block_size: int) -> None:
    check(make_case([(1, 200), (20, 130)], (4, 2, 32), block_size=block_size))


def test_no_tokens_at_all() -> None:
    assert make_case([(1, 1)], (2, 2, 16)).run([]) == []


def test_long_sequences_are_split_and_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "LEAST_SPLIT", 64)
    check(make_case([(1, 700), (1, 64), (3, 65), (1, 1), (70, 300)], (4, 2, 32)))


def test_scratch_is_only_taken_where_sequences_may_be_split() -> None:
    tile = tiles.attention_tile(4, 4, 4096, 4, 128, False)
    assert triton_attention.num_floats(4, tile.split, 8, 128, tile) == 0
    assert triton_attention.num_floats(4, tile.split + 1, 8, 128, tile) == 4 * 2 * 8 * tile.block_m * 130


def test_a_row_has_the_same_bits_alone_in_company_as_a_token_and_in_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "INVARIANT_SPLIT", 64)
    case = make_case([(40, 150), (1, 150), (1, 64), (20, 20), (1, 3)], (4, 2, 32), "bfloat16", "bfloat16")
    case.tables[1] = case.tables[0]  # the same sequence twice: its last 40 tokens, and its last one
    case.q[case.starts[1]] = case.q[case.starts[1] - 1]
    together = case.run(invariant=True)
    for seq in range(5):
        np.testing.assert_array_equal(case.run([seq], invariant=True)[0], together[seq])
    for seq, found in zip([4, 1, 3], case.run([4, 1, 3], invariant=True), strict=True):
        np.testing.assert_array_equal(found, together[seq])
    np.testing.assert_array_equal(together[1][0], together[0][-1])
    check(case, "bfloat16", invariant=True)


@pytest.mark.parametrize("invariant", [False, True])
def test_tiles_hold_a_token_and_fit_shared_memory(invariant: bool) -> None:
    for num_tokens, num_seqs in ((1, 1), (64, 64), (100, 64), (8192, 4), (1, 4096)):
        for group in (1, 4, 7, 8, 32):
            for head_dim in (64, 128, 256):
                tile = tiles.attention_tile(num_tokens, num_seqs, 131072, group, head_dim, invariant)
                assert tile.block_m >= group
                assert tile.split % tile.block_n == 0
                pages = 2 * tile.block_n * tiles.power_of_two(head_dim) * 2 * tile.num_stages
                assert pages + tile.block_m * tiles.power_of_two(head_dim) * 2 <= 227 * 1024
                assert invariant or num_seqs * -(-131072 // tile.split) <= tiles.MOST_ITEMS
