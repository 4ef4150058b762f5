"""The pieces of the way to FlashInfer, one by one: pages in a row, what fits, memory, whose pinned memory is written
when. Knows: our side. Does not know: engines."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from quire.attention_shape import KINDS, AttentionShape, kind_of, typical  # noqa: E402
from quire.kernels.torch.lanes import PlainLanes, Uploads  # noqa: E402
from quire.kernels.vendor import fits  # noqa: E402
from quire.kernels.vendor.flashinfer import FlashInfer, Planned, open_flashinfer  # noqa: E402
from quire.kernels.vendor.paging import paged  # noqa: E402
from tests.torch_backend.test_flashinfer import library as _library  # noqa: E402

library = _library
LLAMA_8B = AttentionShape(32, 32, 8, 128, 128**-0.5, 16, "bfloat16", 256, 8192, 131072)
SMALL = AttentionShape(2, 4, 2, 64, 0.125, 16, "bfloat16", 4, 64, 256)


@given(st.lists(st.integers(1, 200), min_size=1, max_size=9), st.sampled_from([16, 32, 128]), st.integers(0, 3))
def test_pages_in_a_row_are_the_tables_without_what_lies_beyond(lens: list[int], size: int, more: int) -> None:
    lens_S = np.array(lens, np.int32)
    tables = np.random.default_rng(0).integers(0, 1000, (len(lens), -(-max(lens) // size) + more)).astype(np.int32)
    ends, pages, last = paged(lens_S, tables, size)
    assert ends.dtype == pages.dtype == last.dtype == np.int32
    assert ends[0] == 0
    assert ends[-1] == len(pages)
    for seq, length in enumerate(lens):
        mine = pages[ends[seq] : ends[seq + 1]]
        assert mine.tolist() == tables[seq, : len(mine)].tolist()
        assert (len(mine) - 1) * size + last[seq] == length
        assert 1 <= last[seq] <= size


@pytest.mark.parametrize("lens", [[0, 5], [5, 40]])
def test_sequences_that_their_tables_do_not_hold_are_refused(lens: list[int]) -> None:
    with pytest.raises(ValueError, match="blocks in tables of 2"):
        paged(np.array(lens, np.int32), np.zeros((2, 2), np.int32), 16)


@pytest.mark.parametrize(
    ("counts", "kind"),
    [([1], "tokens"), ([1, 1, 1], "tokens"), ([2], "prompts"), ([7, 3], "prompts"), ([1, 9], "mixed")],
)
def test_kinds_of_steps(counts: list[int], kind: str) -> None:
    assert kind_of(counts) == kind


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [LLAMA_8B, SMALL, replace(LLAMA_8B, most_seqs=8, most_tokens=1024, most_keys=4096)])
def test_a_typical_step_is_of_its_kind_and_fits_the_plan(shape: AttentionShape, kind: str) -> None:
    sizes = typical(shape, kind)
    assert kind_of([queries for queries, _ in sizes]) == kind
    assert sum(queries for queries, _ in sizes) <= shape.most_tokens
    assert len(sizes) <= shape.most_seqs
    assert all(queries <= keys <= shape.most_keys for queries, keys in sizes)
    held = sum(keys for _, keys in sizes) * 2 * shape.num_kv_heads * shape.head_dim * 2
    assert held <= 2**28 + shape.most_tokens * 2 * shape.num_kv_heads * shape.head_dim * 2


BF16 = "torch.bfloat16"


@pytest.mark.parametrize(
    ("change", "version", "capability", "why"),
    [
        ({}, "0.6.18", (9, 0), ""),
        ({}, "0.4.0.post1+cu128", (8, 0), ""),
        ({}, "0.10.0rc1", None, ""),
        ({}, "0.3.1", (9, 0), "older than 0.4"),
        ({}, "?", (9, 0), "older than 0.4"),
        ({}, "0.6.18", (7, 5), "needs compute capability 8.0, and this GPU has 7.5"),
        ({"kv_dtype": "fp8"}, "0.6.18", (9, 0), "these are fp8"),
        ({"kv_dtype": "float16"}, "0.6.18", (9, 0), "these are bfloat16"),
        ({"head_dim": 80}, "0.6.18", (9, 0), "these are of 80"),
        ({"num_heads": 30}, "0.6.18", (9, 0), "no multiple of 8"),
    ],
)
def test_what_fits(change: dict[str, Any], version: str, capability: tuple[int, int] | None, why: str) -> None:
    told = fits.obstacle(replace(LLAMA_8B, **change), torch.bfloat16, version, capability)
    assert why in told
    assert bool(told) == bool(why)


def test_kernels_by_the_machine_and_the_heads() -> None:
    assert [fits.prompt_kernel(each) for each in ((9, 0), (8, 0), (10, 0), None)] == ["fa3", "fa2", "fa2", "fa2"]
    assert fits.takes_tensor_cores(LLAMA_8B)
    assert not fits.takes_tensor_cores(replace(LLAMA_8B, num_kv_heads=16))


def test_memory_for_partial_sums_holds_what_a_plan_asks_for() -> None:
    """The formulas of its planner: rows of a tile times tiles times heads, a float more than the head has."""
    for shape in (LLAMA_8B, replace(LLAMA_8B, num_heads=64), replace(LLAMA_8B, num_kv_heads=1), SMALL):
        room, programs = fits.workspace_bytes(shape, 132), 2 * 132 // shape.num_kv_heads
        tile = 16 if shape.group <= 16 else 64
        tiles = max(programs, -(-shape.most_seqs * shape.group // tile) + shape.most_seqs - 1)
        for rows in (tiles * tile, programs * 128):
            assert shape.num_heads * rows * 4 * (shape.head_dim + 1) + 64 <= room
    assert fits.workspace_bytes(LLAMA_8B, 132) == 128 * 2**20


def opened(shape: AttentionShape = SMALL, compiles: bool = False) -> tuple[FlashInfer | None, str]:
    return open_flashinfer(PlainLanes(torch.device("cpu")), shape, torch.bfloat16, compiles)


def test_kernels_that_are_not_compiled_are_left_alone_unless_asked_for(
    library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import flashinfer.jit as jit

    assert opened()[1] == "flashinfer 0.6.18"
    monkeypatch.setitem(jit.COMPILED, "decode", False)
    assert opened() == (None, "its kernels are not compiled yet (batch_decode)")
    assert opened(compiles=True)[1] == "flashinfer 0.6.18"
    assert opened(replace(SMALL, num_heads=8))[1] == "flashinfer 0.6.18", "single tokens by the other kernel"
    monkeypatch.setitem(jit.COMPILED, "fa2", False)
    assert "batch_prefill_fa2" in opened(replace(SMALL, num_heads=8))[1]
    monkeypatch.delattr(jit, "gen_batch_decode_module")
    assert "AttributeError" in opened()[1]


def test_one_that_cannot_be_imported_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    def broken(name: str) -> Any:
        raise OSError("libcudart.so.13: cannot open shared object file")

    monkeypatch.setattr(importlib, "import_module", broken)
    assert opened() == (None, "OSError: libcudart.so.13: cannot open shared object file")


def test_more_rows_than_there_is_room_for_are_refused(library: Any) -> None:
    found, _ = opened()
    assert found is not None
    with pytest.raises(ValueError, match="room for 4 sequences a step, not for 5"):
        found.recorded(5)


def test_another_scale_than_the_planned_one_is_refused(library: Any) -> None:
    found, _ = opened()
    assert found is not None
    with pytest.raises(ValueError, match=r"planned with scale 0.125, not 0.3"):
        found.step("tokens").attend(torch.zeros(1, 4, 64), SimpleNamespace(data=[]), 0, 0.3, torch.zeros(1, 256))


class Late(PlainLanes):
    """A device that reads pinned memory only when somebody waits for its mark."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.waits: list[Any] = []

    def mark(self) -> Any:
        return SimpleNamespace(wait=lambda: [each() for each in self.waits])


def test_pinned_lengths_are_not_written_before_the_last_plan_has_read_them() -> None:
    lanes, seen, expected = Late(), [], []

    def plan(starts: Any, ends: Any, pages: Any, last: Any) -> None:
        lanes.waits[:] = [lambda: seen.append([starts.tolist(), ends.tolist(), last.tolist()])]

    planned = Planned(SimpleNamespace(), plan, SMALL, lanes, Uploads(PlainLanes(torch.device("cpu"))))
    for lens in ([5, 20], [33, 1], [16, 17, 18]):
        starts = np.arange(len(lens) + 1, dtype=np.int32)
        tables = np.zeros((len(lens), 3), np.int32)
        planned.fill(starts, np.array(lens, np.int32), tables)
        ends, _, last = paged(np.array(lens, np.int32), tables, 16)
        expected.append([starts.tolist(), ends.tolist(), last.tolist()])
    planned._mark.wait()
    assert seen == expected
