"""The sampler against the definition: the same tokens, the same bits of log probability, in any company."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.kernels.reference.logprobs import token_logprob
from quire.kernels.reference.sample import sample as reference
from quire.kernels.reference.truncation import candidates
from quire.ops.device import Device, available_isas
from quire.request import Constraint, SamplingParams
from quire.sampling.sampler import Sampler, told
from quire.step import Draw, WorkResult
from tests.sampling.draws import SIZES, draw, draws, logits, rows


@pytest.fixture(scope="module")
def devices() -> Iterator[list[Device]]:
    """Every instruction set of this machine, with one thread and with more than there are rows in most tests."""
    devices = [Device(threads, isa) for isa in available_isas() for threads in (1, 3)]
    yield devices
    for device in devices:
        device.close()


@pytest.fixture(params=available_isas(), scope="module")
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    with Device(2, request.param) as device:
        yield device


def one(device: Device, row: np.ndarray, how: Draw) -> WorkResult:
    return Sampler(device).draw(row[None], [how])[0]


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_every_chain_gives_what_the_definition_gives(devices: list[Device], data: st.DataObject) -> None:
    size = data.draw(st.sampled_from(SIZES))
    table = np.stack([data.draw(logits(size)) for _ in range(data.draw(st.integers(1, 4)))])
    asked = [data.draw(draws(size)) for _ in table]
    before = table.copy()
    expected = [reference(row, how) for row, how in zip(before, asked, strict=True)]
    for device in devices:
        assert Sampler(device).draw(table, asked) == expected
        kept = np.array([not how.is_restricted for how in asked])  # tokens outside a mask may become minus infinity
        assert np.array_equal(table[kept], before[kept])
        table[:] = before


@pytest.mark.parametrize("scale", [0.05, 1.0, 4.0])
@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=0.0, logprobs=5),
        SamplingParams(seed=1),
        SamplingParams(seed=2, top_p=0.95),
        SamplingParams(seed=3, top_p=0.9, top_k=40, logprobs=20),
        SamplingParams(seed=4, top_k=500, temperature=1.7),
        SamplingParams(seed=5, min_p=0.02, top_p=0.99),
        SamplingParams(
            seed=6, top_p=0.9, repetition_penalty=1.2, frequency_penalty=0.3, logit_bias={7: 5.0, 151935: 9.0}
        ),
    ],
    ids=repr,
)
def test_a_real_vocabulary(devices: list[Device], params: SamplingParams, scale: float) -> None:
    row = rows(151936, seed=8) * np.float32(scale)
    how = draw(params, history=list(range(0, 90000, 7)), num_prompt=9000, indices=(0, 5))
    expected = reference(row, how)
    for device in devices:
        assert one(device, row, how) == expected


def test_company_changes_no_bit(device: Device) -> None:
    """A row alone, among others, in another order: the same result."""
    table = np.stack([rows(1000, seed) for seed in range(9)])
    asked = [
        draw(SamplingParams(seed=n, top_p=0.9, top_k=n % 3 * 30, logprobs=(None, 0, 1, 2)[n % 4], min_p=n / 1000))
        for n in range(9)
    ]
    together = Sampler(device).draw(table, asked)
    assert together == [one(device, row, how) for row, how in zip(table, asked, strict=True)]
    assert together[::-1] == Sampler(device).draw(table[::-1].copy(), asked[::-1])


def test_a_growing_history_is_followed(device: Device) -> None:
    """One Draw serves many steps; penalties see every token, whoever joins, leaves or comes back meanwhile."""
    sampler = Sampler(device)
    penal = SamplingParams(temperature=0.0, repetition_penalty=1.5, presence_penalty=0.4, frequency_penalty=0.2)
    live = [draw(penal if n % 2 else SamplingParams(seed=n), history=[n, n + 1]) for n in range(6)]
    for step in range(40):
        here = [how for n, how in enumerate(live) if (step // 3 + n) % 4]
        table = np.stack([rows(40, seed=step) / 9 for _ in here])
        expected = [reference(row, how) for row, how in zip(table, here, strict=True)]
        got = sampler.draw(table[:2].copy(), here[:2], 0) + sampler.draw(table[2:].copy(), here[2:], 1)
        sampler.finish(2)
        assert got == expected
        for how, result in zip(here, got, strict=True):
            how.history.extend(result.tokens)  # type: ignore[attr-defined]


def test_draws_follow_the_probabilities(device: Device) -> None:
    """Chi-squared of 5,000 draws at as many positions, for several cuts; the 99.99 % point of each distribution."""
    row, num = rows(30, seed=3) / 2, 5000
    for params in (
        SamplingParams(seed=11),
        SamplingParams(seed=12, temperature=0.8, top_p=0.9),
        SamplingParams(seed=13, top_k=7, min_p=0.01),
    ):
        ids, weights = candidates(row, params)
        expected = weights / weights.sum() * num
        table = np.broadcast_to(row, (50, 30)).copy()
        counts = np.zeros(30)
        for first in range(0, num, 50):
            asked = [draw(params, history=range(1 + first + n), num_prompt=1) for n in range(50)]
            for result in Sampler(device).draw(table, asked):
                counts[result.tokens[0]] += 1
        assert counts[ids].sum() == num
        degrees = len(ids) - 1
        limit = degrees * (1 - 2 / (9 * degrees) + 3.72 * np.sqrt(2 / (9 * degrees))) ** 3  # Wilson and Hilferty
        assert ((counts[ids] - expected) ** 2 / expected).sum() < limit


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [1, 40, 700])
def test_logits_that_are_not_finite_are_an_error_of_their_row(device: Device, bad: float, size: int) -> None:
    table = np.stack([rows(size), rows(size), rows(size)])
    table[1, size // 2] = bad
    for params in (SamplingParams(temperature=0.0), SamplingParams(seed=1, top_p=0.5, logprobs=1)):
        got = Sampler(device).draw(table, [draw(params, history=(0,))] * 3)
        assert [result.error is not None for result in got] == [False, True, False]
        assert got[1].tokens == ()
    assert told(device, table, [0, 0, 0], 1) is None
    assert one(device, np.full(size, -np.inf, np.float32), draw(params, history=(0,))).error is not None


def test_a_row_of_which_nothing_is_left_is_an_error(device: Device) -> None:
    table = np.stack([rows(3), rows(3)])
    how = draw(SamplingParams(seed=1), banned_ids=(0, 1, 2))
    got = Sampler(device).draw(table, [how, draw(SamplingParams(seed=1))])
    assert got[0] == reference(table[0], how)
    assert got[0].error is not None
    assert got[1].error is None


def test_told_is_the_definition(device: Device) -> None:
    table = np.stack([rows(300, seed) for seed in range(7)])
    tokens = [0, 299, 5, 5, 100, 255, 256]
    for num_top in (0, 1, 20):
        expected = [token_logprob(row, token, num_top) for row, token in zip(table, tokens, strict=True)]
        assert told(device, table, tokens, num_top) == expected
    assert len((told(device, rows(2)[None], [1], 20) or [])[0].top) == 2


def test_biases_beyond_the_vocabulary_do_nothing(device: Device) -> None:
    row = rows(20)
    odd = draw(SamplingParams(seed=1, logit_bias={20: 100.0, 2**31 - 1: 9.0}), banned_ids=(21,))
    assert one(device, row, odd) == one(device, row, draw(SamplingParams(seed=1)))


@pytest.mark.parametrize("allowed", [[1000], [3, 700], list(range(256, 512))])
@pytest.mark.parametrize("params", [{"top_k": 300}, {"top_k": 1000}, {"top_k": 2}, {"top_k": 600, "top_p": 0.5}])
def test_top_k_may_be_more_than_a_mask_leaves(device: Device, allowed: list[int], params: dict[str, Any]) -> None:
    """Whole blocks of 256 are forbidden here: once the k best were looked for among fewer than k, beyond the table."""
    row = rows(1030, 5)
    how = draw(SamplingParams(seed=2, **params), indices=(0, 1), constraint=Constraint("g"))
    allowed_V = np.isin(np.arange(33 * 32), allowed)
    mask_RW = np.packbits(allowed_V, bitorder="little").view(np.int32)[None]
    assert Sampler(device).draw(row[None].copy(), [how], 0, mask_RW)[0] == reference(row, how, allowed_V[:1030])
