"""A row's logits depend on its own sequence alone: not on chunks, neighbours, threads, or what the arena held."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.models.stage import Stage
from tests.models.tiny import make_tiny

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny"), "qwen3", tie_word_embeddings=True)


def tokens(seed: int, count: int) -> list[int]:
    return [random.Random(seed * 1000 + place).randrange(300) for place in range(count)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@given(chunks=st.lists(st.integers(1, 40), min_size=1, max_size=5), others=st.lists(st.integers(1, 30), max_size=3))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_chunks_and_neighbours_change_no_bit(folder: Path, dtype: str, chunks: list[int], others: list[int]) -> None:
    ids = tokens(1, sum(chunks))
    with Stage(folder, dtype) as alone, Stage(folder, dtype, threads=2) as crowded:
        whole = alone.run([(0, ids)])
        begin = 0
        for turn, chunk in enumerate(chunks):
            works = [(10 * turn + other + 1, tokens(other + 2, count)) for other, count in enumerate(others)]
            place = turn % (len(works) + 1)
            before = sum(len(ids) for _, ids in works[:place])
            works.insert(place, (0, ids[begin : begin + chunk]))
            rows = crowded.run(works)[before : before + chunk]
            assert np.array_equal(rows, whole[begin : begin + chunk])
            begin += chunk


def test_chosen_rows_are_the_rows(folder: Path) -> None:
    with Stage(folder) as stage:
        every = stage.run([(0, tokens(1, 20)), (1, tokens(2, 9))])
        rows = [28, 0, 19, 19]
        assert np.array_equal(stage.run([(2, tokens(1, 20)), (3, tokens(2, 9))], rows), every[rows])
        assert stage.run([(4, tokens(1, 3))], []).shape == (0, 300)


def test_hidden_and_logits_in_slices_are_forward(folder: Path) -> None:
    with Stage(folder) as stage:
        every = stage.run([(0, tokens(1, 12))])
        step = stage.forward([(1, tokens(1, 12))])
        hidden_TH = stage.model.hidden(step)
        for first in range(0, 12, 5):
            rows_R = np.arange(first, min(first + 5, 12), dtype=np.int32)
            assert np.array_equal(stage.model.logits(step, hidden_TH, rows_R), every[rows_R])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("chosen", [[0, 1, 2], [1], [2, 0], []])
def test_ends_are_last_rows_of_hidden_and_leave_the_same_cache(folder: Path, dtype: str, chosen: list[int]) -> None:
    parts = [tokens(1, 20), tokens(2, 1), tokens(3, 9)]
    with Stage(folder, dtype, threads=2) as stage:
        step = stage.forward(list(enumerate(parts)))
        hidden_TH = stage.model.hidden(step).copy()
        ends_RH = stage.model.ends(stage.forward(list(enumerate(parts, 3))), np.array(chosen, np.int32))
        assert np.array_equal(ends_RH, hidden_TH[[(19, 20, 29)[seq] for seq in chosen]])
        after = [stage.run([(seq, [5]), (seq + 3, [5])]) for seq in range(3)]
        assert all(np.array_equal(whole, ended) and np.isfinite(whole).all() for whole, ended in after)


def test_ends_of_single_tokens(folder: Path) -> None:
    with Stage(folder) as stage:
        works = [(seq, tokens(seq, 1)) for seq in range(4)]
        hidden_TH = stage.model.hidden(stage.forward(works)).copy()
        again = [(seq + 4, ids) for seq, ids in works]
        assert np.array_equal(stage.model.ends(stage.forward(again), np.arange(4, dtype=np.int32)), hidden_TH)


def test_reserved_arena_never_grows(folder: Path) -> None:
    with Stage(folder) as stage:
        stage.model.reserve(stage.arena, num_tokens=64, num_rows=64)
        size = stage.arena.num_bytes
        for count in (1, 64, 7, 33):
            stage.run([(count, tokens(1, count))])
        assert stage.arena.num_bytes == size
        stage.run([(100, tokens(1, 65))])
        assert stage.arena.num_bytes > size
