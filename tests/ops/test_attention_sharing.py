"""Sequences that begin with the same blocks: whatever they share and with whom, a row's bits are those it has alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.ops.device import Device, available_isas
from tests.ops.test_attention import DTYPES, Texts, check, make_texts, run

STEMS = [700, 1100, 400]  # three documents; a text may begin with the blocks of one of them
BLOCK = 16


def branch(stems: Texts, branches: list[tuple[int, int, int]]) -> Texts:
    """Texts over the pages of `stems`: (stem, shared blocks, own tokens) each. Own tokens lie in pages of the last
    stem, any will do."""
    rng = np.random.default_rng(7)
    spare = stems.tables_SB[-1][stems.tables_SB[-1] >= 0]
    width = max(shared + -(-own // BLOCK) for _, shared, own in branches)
    tables = np.full((len(branches), width), -1, np.int32)
    lengths = []
    for i, (stem, shared, own) in enumerate(branches):
        num_own = -(-own // BLOCK)
        tables[i, :shared] = stems.tables_SB[stem, :shared]
        tables[i, shared : shared + num_own] = rng.choice(spare, num_own)
        lengths.append(shared * BLOCK + own)
    _, num_heads, head_dim = stems.q[0].shape
    q = [rng.standard_normal((length, num_heads, head_dim), dtype=np.float32) for length in lengths]
    return Texts(q, stems.k, stems.v, stems.kv, tables)


def last_rows(texts):
    return [(seq, length - 1, length) for seq, length in enumerate(texts.lengths)]


def check_bits(isa, texts, spans, threads=(1, 2, 3)):
    """All spans in one launch give what each gives alone."""
    with Device(1, isa) as device:
        alone = np.concatenate([run(device, texts, [span]) for span in spans])
    for num_threads in threads:
        with Device(num_threads, isa) as device:
            np.testing.assert_array_equal(run(device, texts, spans), alone)


class Stems(Texts):
    def __repr__(self) -> str:
        return f"Stems({self.kv.dtype})"


@pytest.fixture(scope="module", params=DTYPES)
def stems(request):
    texts = make_texts([*STEMS, 3000], request.param, *(4, 2), 32)
    return Stems(texts.q, texts.k, texts.v, texts.kv, texts.tables_SB)


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("num_seqs", [2, 3, 8, 17, 40])
@pytest.mark.parametrize("shared", [8, 25, 32, 40, 64])  # blocks: below, at and between key tiles and splits
def test_a_group_gives_the_bits_of_each_alone_and_agrees_with_the_reference(isa, stems, num_seqs, shared):
    texts = branch(stems, [(1, shared, 1 + 37 * i % 300) for i in range(num_seqs)])
    check_bits(isa, texts, last_rows(texts), threads=(2,))
    with Device(2, isa) as device:
        check(device, texts, last_rows(texts)[:4])


@pytest.mark.parametrize("isa", available_isas())
@settings(max_examples=40, deadline=None)
@given(
    branches=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 25), st.integers(1, 300)), min_size=2, max_size=12),
    stretch=st.integers(1, 2),
)
def test_nested_and_partial_sharing_gives_the_same_bits(isa, stems, branches, stretch):
    """Different depths of the same documents: runs within runs, each beginning anywhere in a split."""
    scaled = [(stem, min(shared * stretch, STEMS[stem] // BLOCK), own) for stem, shared, own in branches]
    texts = branch(stems, scaled)
    check_bits(isa, texts, last_rows(texts), threads=(1, 3))


@pytest.mark.parametrize("isa", available_isas())
@settings(max_examples=25, deadline=None)
@given(
    chunks=st.lists(st.tuples(st.integers(0, 9), st.integers(2, 80)), max_size=3),
    order=st.randoms(use_true_random=False),
)
def test_prompt_chunks_beside_a_group_change_nothing(isa, stems, chunks, order):
    texts = branch(stems, [(1, 30 + 2 * (i % 3), 20 + 61 * i) for i in range(10)])
    spans = last_rows(texts) + [(seq, texts.lengths[seq] - count, texts.lengths[seq]) for seq, count in chunks]
    order.shuffle(spans)
    check_bits(isa, texts, spans, threads=(2,))


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("heads", [(1, 1), (16, 8), (9, 3), (16, 1), (40, 1)])
@pytest.mark.parametrize("block_size", [16, 48])
def test_every_grouping_of_heads_shares_with_the_same_bits(isa, heads, block_size):
    texts = make_texts([600] * 7, "bfloat16", *heads, block_size=block_size)
    texts.tables_SB[:, : 480 // block_size] = texts.tables_SB[0, : 480 // block_size]
    texts.tables_SB[:3, : 528 // block_size] = texts.tables_SB[0, : 528 // block_size]
    check_bits(isa, texts, last_rows(texts), threads=(2,))


@pytest.mark.parametrize("isa", available_isas())
def test_what_is_not_finite_in_one_row_or_in_its_own_keys_harms_no_other(isa, stems):
    texts = branch(stems, [(1, 40, 30 + i) for i in range(9)])
    with Device(2, isa) as device:
        want = run(device, texts, last_rows(texts))
        texts.q[4][:] = np.nan
        got = run(device, texts, last_rows(texts))
    np.testing.assert_array_equal(np.delete(got, 4, axis=0), np.delete(want, 4, axis=0))
    assert np.isnan(got[4]).all()


def test_more_sequences_than_are_compared_with_each_other(stems):
    texts = branch(stems, [(1, 8, 1 + i % 3) for i in range(1030)])
    with Device(2) as device:
        at_once = run(device, texts, last_rows(texts))
        for seq in (0, 1, 1023, 1024, 1029):
            np.testing.assert_array_equal(run(device, texts, last_rows(texts)[seq : seq + 1]), at_once[seq : seq + 1])
