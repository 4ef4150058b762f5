"""What is infinite or NaN is told where it is stored, seen by whoever reads it, and by nobody else.

Knows: the ops that store and read pages. Does not know: what a step makes of it (`tests/runner/test_flaws.py`).
"""

from __future__ import annotations

import numpy as np
import pytest

from quire.ops.attention import attention
from quire.ops.device import Device, available_isas
from quire.ops.kv_cache import KVCache
from quire.ops.rope_store import rope_store
from tests.ops.test_attention import Texts, make_texts
from tests.ops.test_attention import run as attend

DTYPES = ["bfloat16", "float32", "int8"]
WRONG = [np.nan, np.inf, -np.inf]


def store(device: Device, kv: KVCache, slots: np.ndarray, k: np.ndarray, v: np.ndarray, layer: int = 1) -> np.ndarray:
    """Keys [n, G, D] and values to slots, the keys' halves as (k1 - k2, k2 + k1); the flaws that are told."""
    num_tokens, half = len(slots), kv.head_dim // 2
    parts = [np.zeros((num_tokens, kv.head_dim)), k.reshape(num_tokens, -1), v.reshape(num_tokens, -1)]
    ones = np.ones((1, half), np.float32)
    flaws_T1 = np.zeros(num_tokens + 1, np.int32)
    q_out = np.empty((num_tokens, 1, kv.head_dim), np.float32)
    qkv = np.concatenate(parts, axis=1).astype(np.float32)
    positions, slots = np.zeros(num_tokens, np.int32), np.asarray(slots, np.int32)
    rope_store(device, qkv, positions, slots, ones, ones, kv, layer, None, None, 0.0, q_out, flaws_T1)
    return flaws_T1


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", [2, 10, 24, 64, 80, 128])
def test_each_element_of_keys_and_values_is_looked_at(isa, dtype, head_dim):
    rng = np.random.default_rng(head_dim)
    num_tokens, num_heads = 70, 3
    kv = KVCache(2, 5, 16, num_heads, head_dim, dtype)
    with Device(2, isa) as device:
        for wrong in WRONG:
            for whose in (0, 1):
                pages = rng.standard_normal((2, num_tokens, num_heads, head_dim))
                rows = sorted(rng.choice(num_tokens, 4, replace=False).tolist())
                for row in rows:
                    pages[whose, row, rng.integers(num_heads), rng.integers(head_dim)] = wrong
                flaws_T1 = store(device, kv, np.arange(num_tokens), *pages)
                assert flaws_T1[0] == 1
                assert np.flatnonzero(flaws_T1[1:]).tolist() == rows


def test_nothing_is_told_of_what_is_finite_however_large():
    kv = KVCache(2, 5, 16, 3, 24)
    pages = np.full((2, 70, 3, 24), 1e38)
    with Device(2) as device:
        assert not store(device, kv, np.arange(70), *pages).any()


def test_flaws_of_another_length_are_refused():
    kv = KVCache(1, 1, 16, 1, 16)
    one, q_out, at = np.ones((1, 8), np.float32), np.empty((2, 1, 16), np.float32), np.zeros(2, np.int32)
    slots, short = np.arange(2, dtype=np.int32), np.zeros(2, np.int32)
    with Device(1) as device, pytest.raises(ValueError, match="flaws_T1 must have one element more"):
        rope_store(device, np.ones((2, 48), np.float32), at, slots, one, one, kv, 0, None, None, 0.0, q_out, short)


def slot_of(texts: Texts, seq: int, position: int) -> int:
    return int(texts.tables_SB[seq, position // 16]) * 16 + position % 16


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("whose", ["keys", "values"])
def test_every_row_that_reads_it_sees_it(isa, dtype, wrong, whose):
    """Minus infinity among keys above all: with most queries such a key has no weight at all, and nothing would show.

    Rows of a prompt (lanes of rows), single tokens (lanes of tokens), and rows that share pages.
    """
    lengths, at = [40, 700], 533
    clean, harmed = make_texts(lengths, dtype), make_texts(lengths, dtype)
    k, v = np.zeros((1, 2, 16)), np.zeros((1, 2, 16))
    (k if whose == "keys" else v)[:, :, 0] = wrong
    spans = [(0, 0, 40), (1, 500, 700)]
    with Device(2, isa) as device:
        assert store(device, harmed.kv, [slot_of(harmed, 1, at)], k, v)[0] == 1
        got, want = attend(device, harmed, spans), attend(device, clean, spans)
        single = [attend(device, harmed, [(1, row, row + 1)])[0] for row in (at, at + 1, 650, 699)]
        before = attend(device, harmed, [(1, at - 1, at)])[0]
        together = shared(device, harmed, [690, 700])
    np.testing.assert_array_equal(got[: 40 + at - 500], want[: 40 + at - 500])
    for row in (*got[40 + at - 500 :], *single, *together):
        assert not np.isfinite(row.reshape(4, 16)).all(axis=1).any()  # each head
    np.testing.assert_array_equal(before, want[40 + at - 501])


def shared(device: Device, texts: Texts, ends: list[int]) -> np.ndarray:
    """The last rows of several sequences that hold the pages of sequence 1, in one launch."""
    q = np.stack([texts.q[1][end - 1] for end in ends])
    starts, lens = np.arange(len(ends) + 1, dtype=np.int32), np.array(ends, np.int32)
    out = np.empty((len(ends), q.shape[1] * q.shape[2]), np.float32)
    attention(device, q, texts.kv, 1, starts, lens, np.repeat(texts.tables_SB[1:2], len(ends), axis=0), 0.25, out)
    return out


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wrong", WRONG)
def test_what_another_sequence_left_in_a_block_is_never_seen(isa, dtype, wrong):
    """A block is given on as it is: every slot is written before it is read."""
    rng = np.random.default_rng(5)
    clean, dirty = KVCache(1, 4, 16, 2, 16, dtype), KVCache(1, 4, 16, 2, 16, dtype)
    tables = np.array([[2, 0], [3, 1]], np.int32)
    with Device(2, isa) as device:
        store(device, dirty, np.arange(64), *np.full((2, 64, 2, 16), wrong), layer=0)
        for length in range(1, 33):
            slots = tables[:, (length - 1) // 16] * 16 + (length - 1) % 16
            page, q = rng.standard_normal((2, 2, 2, 16)), rng.standard_normal((2, 4, 16), dtype=np.float32)
            outs = []
            for kv in (clean, dirty):
                assert not store(device, kv, slots, *page, layer=0).any()
                out = np.empty((2, 64), np.float32)
                starts, lens = np.arange(3, dtype=np.int32), np.full(2, length, np.int32)
                attention(device, q, kv, 0, starts, lens, tables, 0.25, out)
                outs.append(out)
            np.testing.assert_array_equal(*outs)
