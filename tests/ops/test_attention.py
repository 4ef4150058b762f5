"""Paged attention against the NumPy reference, and the laws of its bits: a row depends on itself and its own past
alone."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.kernels.reference import attention as reference
from quire.kernels.reference.kv_cache import ReferenceKVCache
from quire.ops.attention import attention
from quire.ops.device import Device, available_isas
from quire.ops.kv_cache import KVCache
from quire.ops.rope_store import rope_store

DTYPES = ["bfloat16", "float32", "int8"]
EDGES = [1, 15, 16, 17, 127, 128, 129, 511, 512, 513, 1500]  # around 16-token tiles, 128-key steps and 512-key splits
TOLERANCE = {"bfloat16": 6e-3, "float32": 2e-6, "int8": 2e-4}


@dataclass
class Texts:
    """Sequences in a cache: their queries, keys and values, as if every token had been computed."""

    q: list[np.ndarray]  # each [length, Q, D]
    k: list[np.ndarray]  # each [length, G, D]
    v: list[np.ndarray]
    kv: KVCache
    tables_SB: np.ndarray

    @property
    def lengths(self) -> list[int]:
        return [len(q) for q in self.q]


def make_texts(
    lengths, dtype, num_heads=4, num_kv_heads=2, head_dim=16, block_size=16, seed=0, scale=1.0, poison=False
):
    rng = np.random.default_rng(seed)
    q, k, v = (
        [rng.standard_normal((n, heads, head_dim), dtype=np.float32) * factor for n in lengths]
        for heads, factor in ((num_heads, scale), (num_kv_heads, scale), (num_kv_heads, 1.0))
    )
    per_seq = [-(-n // block_size) for n in lengths]
    num_blocks = sum(per_seq) + 2
    kv = KVCache(2, num_blocks, block_size, num_kv_heads, head_dim, dtype)
    ids = iter(rng.permutation(num_blocks))
    tables = np.full((len(lengths), max(per_seq) + 1), -1, np.int32)
    for seq, count in enumerate(per_seq):
        tables[seq, :count] = [next(ids) for _ in range(count)]
    texts = Texts(q, k, v, kv, tables)
    with Device(1) as device:
        if poison:
            slots = np.arange(num_blocks * block_size)
            store(device, kv, slots, *np.full((2, len(slots), num_kv_heads, head_dim), np.nan))
        for seq, length in enumerate(lengths):
            positions = np.arange(length)
            slots = tables[seq, positions // block_size] * block_size + positions % block_size
            store(device, kv, slots, k[seq], v[seq])
    return texts


def store(device, kv, slots, k, v):
    """Keys and values to slots of layer 1, unrotated."""
    num_tokens, half = len(slots), kv.head_dim // 2
    rows = [np.zeros((num_tokens, kv.head_dim)), k.reshape(num_tokens, -1), v.reshape(num_tokens, -1)]
    cos, sin = np.ones((1, half), np.float32), np.zeros((1, half), np.float32)
    q_out = np.empty((num_tokens, 1, kv.head_dim), np.float32)
    qkv = np.concatenate(rows, axis=1).astype(np.float32)
    positions, slots = np.zeros(num_tokens, np.int32), np.asarray(slots, np.int32)
    rope_store(device, qkv, positions, slots, cos, sin, kv, 1, None, None, 0.0, q_out)


def run(device, texts, spans, scale=0.25):
    """One launch; spans: (sequence, first position, end position); returns the rows [T, Q * D] of all spans."""
    q = np.concatenate([texts.q[seq][begin:end] for seq, begin, end in spans])
    starts = np.cumsum([0] + [end - begin for _, begin, end in spans]).astype(np.int32)
    lens = np.array([end for _, _, end in spans], np.int32)
    tables = np.ascontiguousarray(texts.tables_SB[[seq for seq, _, _ in spans]])
    out = np.full((len(q), q.shape[1] * q.shape[2]), np.nan, np.float32)
    attention(device, q, texts.kv, 1, starts, lens, tables, scale, out)
    return out


def expected(texts, spans, scale=0.25):
    """The same rows by the reference."""
    kv = texts.kv
    mirror = ReferenceKVCache(2, kv.num_blocks, kv.block_size, kv.num_kv_heads, kv.head_dim, kv.dtype)
    for block in range(kv.num_blocks):
        mirror.k_LBPGD[1, block], mirror.v_LBPGD[1, block] = kv.read(1, block)
    outs = []
    for seq, begin, end in spans:
        out = np.empty((end - begin, texts.q[seq].shape[1] * kv.head_dim), np.float32)
        starts, lens = np.array([0, end - begin], np.int32), np.array([end], np.int32)
        table = texts.tables_SB[seq : seq + 1]
        reference.attention(texts.q[seq][begin:end], mirror, 1, starts, lens, table, scale, out)
        outs.append(out)
    return np.concatenate(outs)


def whole(texts):
    return [(seq, 0, length) for seq, length in enumerate(texts.lengths)]


def check(device, texts, spans, scale=0.25):
    tolerance = TOLERANCE[texts.kv.dtype]
    got, want = run(device, texts, spans, scale), expected(texts, spans, scale)
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", [2, 8, 16, 34, 64, 80, 96, 112, 128, 256])
def test_every_head_size_agrees_with_the_reference(isa, dtype, head_dim):
    texts = make_texts([70, 5], dtype, head_dim=head_dim)
    with Device(2, isa) as device:
        check(device, texts, [(0, 41, 70), (1, 4, 5)], scale=head_dim**-0.5)


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("heads", [(1, 1), (3, 3), (4, 2), (3, 1), (10, 2), (7, 1), (14, 7), (16, 1), (40, 1)])
def test_every_grouping_agrees_with_the_reference(isa, dtype, heads):
    num_heads, num_kv_heads = heads
    texts = make_texts([100, 33], dtype, num_heads=num_heads, num_kv_heads=num_kv_heads)
    with Device(2, isa) as device:
        check(device, texts, [(0, 80, 100), (1, 0, 33), (0, 99, 100)])


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block_size", [16, 32, 48, 128])
def test_lengths_around_tiles_and_splits_agree_with_the_reference(isa, dtype, block_size):
    texts = make_texts(EDGES, dtype, block_size=block_size)
    singles = [(seq, length - 1, length) for seq, length in enumerate(EDGES)]
    chunks = [(seq, max(0, length - 3 - seq), length) for seq, length in enumerate(EDGES)]
    with Device(2, isa) as device:
        check(device, texts, singles)
        check(device, texts, singles[::2] + chunks + singles[1::2])


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("dtype", DTYPES)
def test_large_logits_stay_finite_and_right(isa, dtype):
    texts = make_texts([300], dtype, scale=100.0, poison=True)
    with Device(1, isa) as device:
        out = run(device, texts, [(0, 0, 300)])
    assert np.isfinite(out).all()
    # Such weights are one-hot nearly everywhere: roundings that move a logit by less than the gap change nothing.
    error = np.abs(out - expected(texts, [(0, 0, 300)])).max(axis=1)
    assert np.quantile(error, 0.9) < 2e-2
    huge = make_texts([300], dtype, scale=1e15)
    with Device(1, isa) as device:
        assert np.isfinite(run(device, huge, [(0, 0, 300)])).all()


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_constant_value_comes_back(isa, dtype):
    texts = make_texts([700], dtype)
    with Device(1, isa) as device:
        slots, constant = np.arange(texts.kv.num_blocks * 16), 127 / 64  # exact with 8 bits, and as 127 times a scale
        store(device, texts.kv, slots, *np.full((2, len(slots), 2, 16), constant))
        np.testing.assert_allclose(run(device, texts, [(0, 0, 700)]), constant, rtol=1e-5)


# ---- laws: bits -----------------------------------------------------------------------------------------------------


def spans_of(cuts, length):
    edges = sorted({0, length, *(cut for cut in cuts if cut < length)})
    return list(pairwise(edges))


@pytest.mark.parametrize("isa", available_isas())
@settings(max_examples=25, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    length=st.sampled_from([*EDGES[:-1], 130, 1100]),
    cuts=st.lists(st.integers(1, 1100), max_size=6),
    threads=st.integers(1, 3),
    heads=st.sampled_from([(4, 2), (3, 3), (6, 1)]),
    head_dim=st.sampled_from([16, 64, 80]),
)
def test_any_chunking_gives_the_same_bits(isa, dtype, length, cuts, threads, heads, head_dim):
    texts = make_texts([length], dtype, *heads, head_dim)
    with Device(1, isa) as one, Device(threads, isa) as several:
        at_once = run(one, texts, [(0, 0, length)])
        in_chunks = np.concatenate([run(several, texts, [(0, *span)]) for span in spans_of(cuts, length)])
        last = run(several, texts, [(0, length - 1, length)])
    np.testing.assert_array_equal(in_chunks, at_once)
    np.testing.assert_array_equal(last, at_once[-1:])


@pytest.mark.parametrize("isa", available_isas())
@settings(max_examples=25, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    spans=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1200), st.integers(1, 70)), min_size=1, max_size=8),
    heads=st.sampled_from([(4, 2), (3, 3), (6, 1)]),
)
def test_a_sequence_alone_gives_the_bits_it_gives_in_a_batch_on_any_number_of_threads(isa, dtype, spans, heads):
    lengths = [1, 17, 70, 512, 600, 1200]
    texts = make_texts(lengths, dtype, *heads)
    begins = [begin % lengths[seq] for seq, begin, _ in spans]
    spans = [(seq, begin, min(lengths[seq], begin + n)) for (seq, _, n), begin in zip(spans, begins, strict=True)]
    with Device(1, isa) as device:
        alone = np.concatenate([run(device, texts, [span]) for span in spans])
    for threads in (1, 2, 3):
        with Device(threads, isa) as device:
            np.testing.assert_array_equal(run(device, texts, spans), alone)


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_block_ids_block_size_or_slots_not_written(isa, dtype):
    lengths = [1, 31, 150, 555]
    outs = []
    with Device(2, isa) as device:
        for block_size, poison in [(16, False), (16, True), (32, True), (112, False), (128, True)]:
            texts = make_texts(lengths, dtype, block_size=block_size, poison=poison)
            outs.append(run(device, texts, whole(texts)))
    for out in outs[1:]:
        np.testing.assert_array_equal(out, outs[0])


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_harms_its_own_sequence_from_its_own_position_only(isa, dtype, wrong):
    lengths, at = [90, 600], 533
    clean, harmed = make_texts(lengths, dtype), make_texts(lengths, dtype)
    block, offset = harmed.tables_SB[1, at // 16], at % 16
    with Device(2, isa) as device:
        store(device, harmed.kv, [block * 16 + offset], *np.full((2, 1, 2, 16), wrong))
        harmed.q[0][7] = wrong
        got, want = run(device, harmed, whole(harmed)), run(device, clean, whole(clean))
    untouched = [row for row in range(690) if row != 7 and row < 90 + at]
    np.testing.assert_array_equal(got[untouched], want[untouched])
    assert np.isnan(got[7]).all()
    assert not np.isfinite(got[90 + at :]).any(axis=0).all()


# ---- refusals -------------------------------------------------------------------------------------------------------


def arguments():
    texts = make_texts([40], "bfloat16")
    return {
        "q": texts.q[0],
        "kv": texts.kv,
        "layer": 1,
        "starts": np.array([0, 40], np.int32),
        "lens": np.array([40], np.int32),
        "tables": texts.tables_SB,
        "scale": 0.25,
        "out": np.empty((40, 64), np.float32),
    }


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"layer": 2}, ValueError, "layer"),
        ({"layer": -1}, ValueError, "layer"),
        ({"starts": np.array([0, 39], np.int32)}, ValueError, "query_starts"),
        ({"starts": np.array([1, 40], np.int32)}, ValueError, "query_starts"),
        ({"starts": np.array([0, 40, 40], np.int32)}, ValueError, "query_starts"),
        ({"starts": np.array([0, 40], np.int64)}, TypeError, "incompatible"),
        ({"lens": np.array([39], np.int32)}, ValueError, "seq_lens"),
        ({"lens": np.array([-40], np.int32)}, ValueError, "seq_lens"),
        ({"lens": np.array([65], np.int32)}, ValueError, "too few columns"),
        ({"tables": np.array([[0, 1, 5]], np.int32)}, ValueError, "block"),
        ({"tables": np.array([[0, -1, 1]], np.int32)}, ValueError, "block"),
        ({"q": np.zeros((40, 3, 16), np.float32)}, ValueError, "multiple"),
        ({"q": np.zeros((40, 4, 8), np.float32)}, ValueError, "head_dim"),
        ({"q": np.zeros((40, 4, 16), np.float64)}, TypeError, "incompatible"),
        ({"q": np.zeros((40, 16, 4), np.float32).transpose(0, 2, 1)}, TypeError, "incompatible"),
        ({"out": np.empty((40, 63), np.float32)}, ValueError, "out_T_QD"),
        ({"scale": np.nan}, ValueError, "scale"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change, error, words):
    args = arguments() | change
    with Device(1) as device, pytest.raises(error, match=words):
        attention(device, *args.values())


def test_sequences_without_rows_and_an_empty_launch_are_nothing():
    texts = make_texts([40], "bfloat16")
    with Device(2) as device:
        starts, lens = np.array([0, 0, 40, 40], np.int32), np.array([0, 40, 3], np.int32)
        out, q = np.empty((40, 64), np.float32), texts.q[0]
        attention(device, q, texts.kv, 1, starts, lens, np.repeat(texts.tables_SB, 3, axis=0), 0.25, out)
        np.testing.assert_array_equal(out, run(device, texts, whole(texts)))
        attention(device, q[:0], texts.kv, 1, starts[:1], lens[:0], texts.tables_SB[:0], 0.25, out[:0])
