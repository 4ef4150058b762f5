"""The NumPy chain from logits to tokens, against a plain definition and in distribution."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.kernels.reference.logprobs import token_logprob
from quire.kernels.reference.penalties import adjust
from quire.kernels.reference.sample import sample
from quire.kernels.reference.truncation import best_first, candidates
from quire.kernels.reference.weights import UNIT, weigh
from quire.request import SamplingParams
from tests.sampling.draws import draw, rows


def plain_candidates(row: np.ndarray, params: SamplingParams) -> dict[int, float]:
    """The definition, slow and clear: softmax of row / temperature; min_p; top_k; top_p; renormalised."""
    weights = np.exp((row.astype(np.float64) - row.max()) / params.temperature)
    order = sorted(range(row.size), key=lambda i: (-row[i], i))
    kept = [i for i in order if weights[i] >= params.min_p]
    if params.top_k > 0:
        kept = kept[: params.top_k]
    total, reached, nucleus = sum(weights[i] for i in kept), 0.0, []
    for i in kept:
        nucleus.append(i)
        reached += weights[i]
        if params.top_p < 1.0 and reached >= params.top_p * total * (1 - 1e-12):
            break
    total = sum(weights[i] for i in nucleus)
    return {i: weights[i] / total for i in nucleus}


def test_equal_logits_break_by_the_lower_id() -> None:
    row = np.zeros(40, np.float32)
    row[[7, 23]] = 5.0
    assert sample(row, draw(SamplingParams(temperature=0))).tokens == (7,)
    assert best_first(row, 5).tolist() == [7, 23, 0, 1, 2]
    ids, _ = candidates(row, SamplingParams(top_k=3))
    assert ids.tolist() == [0, 7, 23]


def test_weights_are_the_exponential() -> None:
    """Within 1 ulp of float32 and half a unit; the largest is exactly 1, what is 30 below it nothing."""
    x = -np.linspace(0, 29.9, 100_001, dtype=np.float32)
    weights = weigh(x, 0.0, 1.0) / UNIT
    exact = np.exp(x.astype(np.float64))
    assert weights[0] == 1.0
    assert (np.abs(weights - exact) <= 1.1 * 2.0**-24 * 2.0 ** np.ceil(np.log2(exact)) + 0.51 / UNIT).all()
    assert weigh(np.array([-30.001, -1e30, -np.inf], np.float32), 0.0, 1.0).tolist() == [0, 0, 0]


@given(
    st.integers(0, 10**6),
    st.integers(1, 60),
    st.floats(0.1, 2.0),
    st.integers(-1, 70),
    st.floats(0.05, 1.0),
    st.sampled_from([0.0, 0.05, 0.5, 1.0]),
)
@settings(max_examples=300, deadline=None)
def test_candidates_are_the_definition(seed: int, size: int, t: float, k: int, p: float, min_p: float) -> None:
    row = np.round(rows(size, seed), 1)  # rounding makes ties
    params = SamplingParams(temperature=t, top_k=k, top_p=p, min_p=min_p)
    ids, weights = candidates(row, params)
    got = {int(i): w for i, w in zip(ids, weights / weights.sum(), strict=True) if w > 0}
    expected = plain_candidates(row, params)
    for token in set(got) ^ set(expected):  # only a candidate exactly on the edge of the nucleus may differ
        least = min({**got, **expected}.values())  # what weighs less than a unit may be there or not
        assert max(got.get(token, 0), expected.get(token, 0)) <= max(1.00001 * least, 1 / UNIT)
    for token in set(got) & set(expected):
        assert got[token] == pytest.approx(expected[token], rel=0.05 if set(got) != set(expected) else 2e-6, abs=1e-9)


def test_draws_follow_the_probabilities() -> None:
    """20,000 draws at as many positions: each token's share within five standard deviations."""
    row = rows(12, seed=3) / 2
    params = SamplingParams(temperature=0.8, top_p=0.9, seed=11)
    expected = plain_candidates(row, params)
    num = 20000
    tokens = [sample(row, draw(params, history=range(position), num_prompt=1)).tokens[0] for position in range(num)]
    counts = np.bincount(tokens, minlength=row.size)
    assert set(np.flatnonzero(counts)) == set(expected)
    for token, share in expected.items():
        assert abs(counts[token] - share * num) < 5 * np.sqrt(num * share * (1 - share) + 1)


def test_samples_of_one_row_are_independent_and_repeatable() -> None:
    params = SamplingParams(temperature=1.5, seed=1, n=8)
    together = sample(rows(), draw(params, indices=tuple(range(8)))).tokens
    alone = tuple(sample(rows(), draw(params, indices=(i,))).tokens[0] for i in range(8))
    assert together == alone
    assert len(set(together)) > 1


def test_penalties_are_the_definition() -> None:
    row = np.array([2.0, -2.0, 1.0, 0.5, 3.0], np.float32)
    params = SamplingParams(
        repetition_penalty=2.0, presence_penalty=0.5, frequency_penalty=0.25, logit_bias={3: 10.0, 4: -100.0}
    )
    got = adjust(row, draw(params, history=(0, 1, 2, 2), num_prompt=2, banned_ids=(1,)))
    # 0 and 1 are prompt: repetition only. 2 was drawn twice: repetition, presence, twice frequency.
    assert got.tolist() == [1.0, -np.inf, 0.5 - 0.5 - 0.5, 10.5, -97.0]
    assert row.tolist() == [2.0, -2.0, 1.0, 0.5, 3.0]


def test_a_banned_token_is_never_drawn() -> None:
    row = np.zeros(3, np.float32)
    params = SamplingParams(temperature=2.0, seed=5)
    tokens = {sample(row, draw(params, history=range(p), num_prompt=1, banned_ids=(2,))).tokens[0] for p in range(500)}
    assert tokens == {0, 1}


def test_logprobs_are_of_the_raw_logits() -> None:
    row = rows(30)
    params = SamplingParams(temperature=0.3, logit_bias={4: 50.0}, logprobs=3)
    result = sample(row, draw(params))
    exact = row.astype(np.float64) - np.log(np.exp(row.astype(np.float64)).sum())
    assert result.tokens == (4,)
    assert result.logprobs[0].logprob == pytest.approx(exact[4], abs=1e-6)
    order = np.argsort(-row, kind="stable")[:3]
    assert [token for token, _ in result.logprobs[0].top] == order.tolist()
    assert [value for _, value in result.logprobs[0].top] == pytest.approx(exact[order].tolist(), abs=1e-6)


def test_extreme_logits_stay_finite() -> None:
    row = np.array([3e38, -3e38, 0.0], np.float32)
    told = token_logprob(row, 1, 2)
    assert np.isfinite([told.logprob, *(value for _, value in told.top)]).all()
    assert sample(row, draw(SamplingParams(temperature=0.01))).tokens == (0,)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_are_an_error_of_this_row(bad: float, temperature: float) -> None:
    row = rows()
    row[17] = bad
    result = sample(row, draw(SamplingParams(temperature=temperature)))
    assert result.tokens == ()
    assert result.error is not None
