"""Logits processors: what they see, what they change, and that they break nobody else's answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from quire.errors import RequestError
from quire.ops.device import Device
from quire.request import SamplingParams
from quire.sampling.processors import process
from quire.sampling.sampler import Sampler
from quire.step import Draw
from tests.sampling.draws import draw, rows

SIZE = 40


@pytest.fixture(scope="module")
def device() -> Iterator[Device]:
    with Device(2) as device:
        yield device


def asking(*processors: Any, history: Any = (7, 1, 2), num_prompt: int = 1, **params: Any) -> Draw:
    return draw(SamplingParams(seed=3, logits_processors=processors, **params), history, num_prompt=num_prompt)


def only(token: int) -> Any:
    def processor(output_ids: Any, logits_V: Any) -> None:
        logits_V[np.arange(len(logits_V)) != token] = -np.inf

    return processor


def test_they_see_the_answer_and_a_copy_in_their_order(device: Device) -> None:
    seen: list[Any] = []
    table = rows(SIZE)[None]
    before = table.copy()

    def doubles(output_ids: Any, logits_V: Any) -> Any:
        seen.append((output_ids, logits_V.copy()))
        return (logits_V * 2).tolist()  # any array-like

    def adds(output_ids: Any, logits_V: Any) -> None:
        seen.append((output_ids, logits_V.copy()))
        logits_V += 1

    how = asking(doubles, adds, temperature=0.0)
    Sampler(device).draw(table, [how])
    assert np.array_equal(table, before)
    assert [ids for ids, _ in seen] == [(1, 2), (1, 2)]
    assert np.array_equal(seen[0][1], before[0])
    assert np.array_equal(seen[1][1], before[0] * 2)


def test_the_rest_of_the_chain_comes_after_and_log_probabilities_are_the_models_own(device: Device) -> None:
    table = rows(SIZE)[None]
    chosen = Sampler(device).draw(table, [asking(only(5), logprobs=3)])[0]
    assert chosen.tokens == (5,)
    plain = Sampler(device).draw(table, [draw(SamplingParams(temperature=0.0, logit_bias={5: 100}, logprobs=3))])[0]
    assert chosen.logprobs == plain.logprobs
    banned = asking(only(5), logit_bias={6: 100.0})
    assert Sampler(device).draw(table, [banned])[0].tokens == (5,)  # a bias lifts nothing out of minus infinity
    shut = Draw(banned.params, (0,), [1], 1, (), None, 0, ((5,),))
    assert "no token may be drawn" in str(Sampler(device).draw(table, [shut])[0].error)


def test_samples_of_one_row_share_one_call(device: Device) -> None:
    calls: list[Any] = []
    how = draw(
        SamplingParams(n=3, seed=1, logprobs=2, logits_processors=[lambda ids, row: calls.append(ids)]),
        indices=(0, 1, 2),
    )
    plain = draw(SamplingParams(n=3, seed=1, logprobs=2), indices=(0, 1, 2))
    table = rows(SIZE)[None]
    assert Sampler(device).draw(table, [how]) == Sampler(device).draw(table, [plain])
    assert calls == [()]


def raises(output_ids: Any, logits_V: Any) -> None:
    logits_V[:] = 3  # changed before it failed
    raise KeyError("no such thing")


@pytest.mark.parametrize(
    ("processor", "words"),
    [
        (raises, "raises raised KeyError: 'no such thing'"),
        (lambda ids, row: row[:-1], "ValueError: a row of shape (39,)"),
        (lambda ids, row: "words", "ValueError"),
        (lambda ids, row: row * np.nan, "NaN or infinity"),
        (lambda ids, row: row + np.inf, "NaN or infinity"),
        (lambda ids, row: row - np.inf, "no token may be drawn"),
        (lambda ids: None, "TypeError"),
    ],
)
def test_one_that_fails_ends_its_own_row(device: Device, processor: Any, words: str) -> None:
    table = np.stack([rows(SIZE, seed) for seed in range(3)])
    plain = [draw(SamplingParams(seed=n, logprobs=1)) for n in range(3)]
    expected = Sampler(device).draw(table, plain)
    got = Sampler(device).draw(table, [plain[0], asking(processor), plain[2]])
    assert (got[0], got[2]) == (expected[0], expected[2])
    assert words in str(got[1].error)
    assert not got[1].tokens


def test_a_row_that_is_not_finite_is_not_shown_to_them(device: Device) -> None:
    table = np.full((1, SIZE), np.nan, np.float32)
    assert "not finite" in str(Sampler(device).draw(table, [asking(raises)])[0].error)


def test_the_logits_stay_as_they_are() -> None:
    row = rows(SIZE)
    before = row.copy()
    made, problem = process(row, asking(raises))
    assert problem
    assert made is row
    assert np.array_equal(row, before)


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(RequestError, match="LogitsProcessor"):
        SamplingParams(logits_processors=["no"])
