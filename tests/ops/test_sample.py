"""The door of `sample`: masks, token counts, refusals. Knows: the door. Does not know: the chain (tests/sampling)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quire.kernels.reference.sample import sample as reference
from quire.ops.device import Device
from quire.ops.sample import NOTHING_ALLOWED, ROW, SAMPLED, Rows, TokenCounts, make_drawn, sample
from quire.request import SamplingParams
from quire.step import Draw

DeviceOf = Callable[[int], Device]
SIZES = (1, 2, 31, 32, 33, 255, 256, 257, 1000, 9000)


def params(num_rows: int, **values: Any) -> Any:
    rows = np.zeros(num_rows, ROW)
    rows["top_p"] = rows["repetition"] = rows["num_draws"] = 1
    rows["num_top"] = rows["given"] = -1
    rows["first_draw"] = np.arange(num_rows)
    for name, value in values.items():
        rows[name] = value
    return rows


def rows_of(records: Any, bias: Any = ()) -> Rows:
    ids, values = [token for token, _ in bias], [value for _, value in bias]
    return Rows(records, np.zeros(len(records), np.int32), np.array(ids, np.int32), np.array(values, np.float32))


def random(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) * 2


def packed(allowed_RV: Any) -> Any:
    """bool [R, V] as int32 words, bit v % 32 of word v // 32."""
    num_rows, size = allowed_RV.shape
    bits = np.zeros((num_rows, (size + 31) // 32 * 32), bool)
    bits[:, :size] = allowed_RV
    return np.packbits(bits, axis=1, bitorder="little").view(np.int32)


@pytest.mark.parametrize("chain", [{"top_p": 0.9}, {}, {"top_k": 3}, {"top_k": 10**6}, {"min_p": 0.01}])
@pytest.mark.parametrize("share", [0.002, 0.5, 0.999])
def test_a_mask_forbids_and_the_rest_is_as_before(device_of: DeviceOf, share: float, chain: dict[str, float]) -> None:
    for size in SIZES:
        logits_RV = random(size, 5, size)
        allowed_RV = np.random.default_rng(size).random((5, size)) < share
        allowed_RV[np.arange(5), np.arange(5) * 7 % size] = True
        expected = [
            reference(logits_RV[r], Draw(SamplingParams(seed=7, **chain), (0,), range(4), 4), allowed_RV[r])
            for r in range(5)
        ]
        rows = rows_of(params(5, masked=1, seed=7, position=4, inv_temperature=1, **chain))
        for threads in (1, 2, 7):
            drawn, work_RV = make_drawn(5, 5, 0), logits_RV.copy()
            assert sample(device_of(threads), work_RV, rows, drawn, None, packed(allowed_RV)) == 0
            assert [(token,) for token in drawn.tokens_D.tolist()] == [result.tokens for result in expected]
            assert np.array_equal(work_RV[allowed_RV], logits_RV[allowed_RV])
            assert np.all((work_RV == logits_RV) | (work_RV == -np.inf))


def test_only_masked_rows_look_at_the_mask(device_of: DeviceOf) -> None:
    logits_RV = random(1, 3, 70)
    rows, drawn = rows_of(params(3, masked=[0, 1, 0])), make_drawn(3, 3, 0)
    assert sample(device_of(2), logits_RV.copy(), rows, drawn, None, np.zeros((3, 3), np.int32)) == 1
    assert drawn.status_R.tolist() == [SAMPLED, NOTHING_ALLOWED, SAMPLED]
    assert drawn.tokens_D.tolist() == [int(logits_RV[0].argmax()), -1, int(logits_RV[2].argmax())]


def test_log_probabilities_are_of_the_raw_logits_under_a_mask(device_of: DeviceOf) -> None:
    logits_RV = random(2, 1, 300)
    best = np.argsort(-logits_RV[0])[:3]
    allowed_RV = np.ones((1, 300), bool)
    allowed_RV[0, best[0]] = False
    drawn, work_RV = make_drawn(1, 1, 3), logits_RV.copy()
    sample(device_of(1), work_RV, rows_of(params(1, masked=1, num_top=3)), drawn, None, packed(allowed_RV))
    assert drawn.tokens_D.tolist() == [best[1]]
    assert drawn.ranks_D.tolist() == [2]
    assert np.array_equal(work_RV, logits_RV), "what is told is counted among all, so the row is put back"
    assert drawn.top_ids_RK[0].tolist() == best.tolist()
    assert drawn.logprobs_D[0] == drawn.top_logprobs_RK[0, 1]


@given(st.lists(st.integers(0, 2**20 - 1) | st.integers(0, 9), max_size=300), st.integers(0, 300), st.integers(0, 300))
def test_token_counts_count(history: list[int], num_prompt: int, cut: int) -> None:
    counts = TokenCounts(num_prompt)
    counts.catch_up(tuple(history[:cut]))
    counts.catch_up(history)
    answer = Counter(history[num_prompt:])
    assert counts.items() == [(token, answer[token]) for token in dict.fromkeys(history)]
    assert (counts.num_tokens, len(counts)) == (len(history), len(set(history)))


def test_token_counts_refuse_what_they_cannot_count() -> None:
    counts = TokenCounts(0)
    counts.catch_up([1, 2])
    for wrong in ([1], [1, 2, -1], [1, 2, 2**20], [1, 2, "a"]):
        with pytest.raises((TypeError, ValueError)):
            counts.catch_up(wrong)
    assert counts.items() == [(1, 1), (2, 1)]


def test_the_record_is_as_long_as_the_kernels() -> None:
    assert (ROW.itemsize, ROW.alignment, ROW.isalignedstruct) == (88, 1, False)


def test_no_rows_are_no_work(device_of: DeviceOf) -> None:
    assert sample(device_of(2), np.empty((0, 8), np.float32), rows_of(params(0)), make_drawn(0, 0, 0)) == 0


WRONG = [
    ("top_p must be", params(2, top_p=0.0)),
    ("top_p must be", params(2, top_p=np.nan)),
    ("min_p must be", params(2, min_p=1.1)),
    ("inv_temperature must be", params(2, inv_temperature=np.inf)),
    ("repetition must be", params(2, repetition=0.0)),
    ("presence and frequency", params(2, presence=np.inf)),
    ("top_k must be", params(2, top_k=-1)),
    ("top_ids_RK must have a column", params(2, num_top=3)),
    ("given must be below", params(2, given=8)),
    ("there is none", params(2, masked=1)),
    ("draws must lie within", params(2, first_draw=1, num_draws=2)),
    ("draws must lie within", params(2, first_draw=-1)),
    ("biases must lie within", params(2, num_bias=2)),
    ("a record of ROW for each", params(3)),
]


@pytest.mark.parametrize(("message", "records"), WRONG)
def test_values_out_of_range_are_refused(device_of: DeviceOf, message: str, records: Any) -> None:
    rows = Rows(records, np.zeros(2, np.int32), np.array([3], np.int32), np.zeros(1, np.float32))
    with pytest.raises(ValueError, match=message):
        sample(device_of(1), random(1, 2, 8), rows, make_drawn(2, 2, 2))


def test_ids_beyond_the_vocabulary_are_refused(device_of: DeviceOf) -> None:
    with pytest.raises(ValueError, match="bias_ids_B must be"):
        sample(device_of(1), random(1, 1, 8), rows_of(params(1, num_bias=1), [(8, 1.0)]), make_drawn(1, 1, 0))
    counts = TokenCounts(0)
    counts.catch_up([8])
    with pytest.raises(ValueError, match="beyond the vocabulary"):
        sample(device_of(1), random(1, 1, 8), rows_of(params(1)), make_drawn(1, 1, 0), [counts])
    with pytest.raises(ValueError, match="an entry for each row"):
        sample(device_of(1), random(1, 1, 8), rows_of(params(1)), make_drawn(1, 1, 0), [])


def test_arrays_that_do_not_fit_are_refused(device_of: DeviceOf) -> None:
    device, rows, drawn = device_of(1), rows_of(params(2)), make_drawn(2, 2, 1)
    short = [replace(drawn, **{name: getattr(drawn, name)[:1]}) for name in ("tokens_D", "logprobs_D", "ranks_D")]
    for wrong in (*short, make_drawn(1, 2, 1), make_drawn(2, 1, 1)):
        with pytest.raises(ValueError, match="sample: "):
            sample(device, random(1, 2, 8), rows, wrong)
    with pytest.raises(ValueError, match="mask_RW must have"):
        sample(device, random(1, 2, 33), rows, drawn, None, np.zeros((2, 1), np.int32))
    with pytest.raises(TypeError):
        sample(device, random(1, 2, 8).astype(np.float64), rows, drawn)
    with pytest.raises(TypeError):
        sample(device, random(1, 2, 16)[:, ::2], rows, drawn)
