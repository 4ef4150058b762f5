"""Draws from a rough head: what they need exact is, whatever is asked. Knows: sampler, a head in two planes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from quire.ops.device import Device
from quire.ops.linear import PackedWeight, linear, quantize_planes
from quire.ops.refine import ALL, Wanted, is_exact, refine, wanted
from quire.request import Constraint, SamplingParams
from quire.sampling.refining import MANY
from quire.sampling.sampler import Sampler, told
from quire.step import WorkResult
from tests.sampling.draws import draw

VOCAB, ROWS = 48 * 130 + 5, 3


@dataclass
class Head:
    """Logits of a few rows, rough and exact, and who refines the rough ones."""

    device: Device
    x_RK: Any
    weight: PackedWeight

    def rough(self) -> Any:
        out_RV = np.empty((ROWS, VOCAB), np.float32)
        linear(self.device, self.x_RK, self.weight, out_RV)
        return out_RV

    def exact(self) -> Any:
        out_RV = self.rough()
        self.refine(out_RV, wanted([()] * ROWS, [ALL] * ROWS), None)
        return out_RV

    def refine(self, logits_RV: Any, asked: Wanted, mask_RW: Any) -> None:
        refine(self.device, self.x_RK, self.weight, logits_RV, asked, mask_RW)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    rng = np.random.default_rng(5)
    with Device(2) as device:
        weight = quantize_planes(device, [rng.standard_normal((VOCAB, 96), np.float32)])
        yield Head(device, rng.standard_normal((ROWS, 96), np.float32) / 4, weight)


def worst(head: Head, count: int) -> list[int]:
    """Tokens that row 1 gives the least, all of them rough."""
    ids: list[int] = head.exact()[1].argsort()[:count].tolist()
    return ids


def drawn(head: Head, params: SamplingParams, logits_RV: Any = None, **more: Any) -> tuple[WorkResult, Any]:
    """What row 1 gives between two plain rows, and the logits as they were left."""
    logits_RV = head.rough() if logits_RV is None else logits_RV
    mask_RW = more.pop("mask_RW", None)
    draws = [draw(SamplingParams(seed=1)), draw(params, **more), draw(SamplingParams(seed=2))]
    results = Sampler(head.device).draw(logits_RV, draws, 0, mask_RW, head.refine)
    assert [result.error for result in results] == [None] * ROWS
    return results[1], logits_RV


GREEDY = SamplingParams(temperature=0.0)


def cases(head: Head) -> Iterator[tuple[SamplingParams, dict[str, Any]]]:
    far = worst(head, 300)
    best = head.exact()[1].argsort()[::-1].tolist()
    yield GREEDY, {}
    yield SamplingParams(temperature=0.0, allowed_token_ids=far), {}
    yield SamplingParams(temperature=0.0, logit_bias=dict.fromkeys(far[:20], 100.0)), {}
    yield SamplingParams(temperature=0.0, logit_bias=dict.fromkeys(best[:900], -100.0)), {}
    yield SamplingParams(temperature=0.0, frequency_penalty=-2.0), {"history": (1, *far[:9] * 40), "num_prompt": 1}
    yield SamplingParams(temperature=0.0, repetition_penalty=1.3), {"history": tuple(best[:30])}
    yield SamplingParams(temperature=0.0, logits_processors=(keep(far),)), {}
    yield SamplingParams(seed=4, temperature=0.7, top_k=20), {}


def keep(ids: list[int]) -> Callable[[list[int], Any], Any]:
    def keeping(history: list[int], row_V: Any) -> Any:
        left_V = np.full_like(row_V, -np.inf)
        left_V[ids] = row_V[ids]
        return left_V

    return keeping


def test_what_is_drawn_is_what_exact_logits_give(head: Head) -> None:
    for params, more in cases(head):
        assert drawn(head, params, **more)[0] == drawn(head, params, head.exact(), **more)[0], params


def test_a_form_whose_tokens_are_all_unlikely(head: Head) -> None:
    far = worst(head, 40)
    mask_RW = np.zeros((ROWS, -(-VOCAB // 32)), np.uint32)
    for token in far:
        mask_RW[1, token >> 5] |= np.uint32(1 << (token & 31))
    form = Constraint("json_object")
    result, logits_RV = drawn(head, GREEDY, constraint=form, mask_RW=mask_RW.view(np.int32))
    assert result.tokens == (far[int(head.exact()[1][far].argmax())],)
    assert np.array_equal(logits_RV[[0, 2]].view(np.uint32), head.rough()[[0, 2]].view(np.uint32))


def test_a_few_bans_and_penalties_read_no_more(head: Head) -> None:
    plain = is_exact(head.rough())
    bans = tuple(range(MANY))
    for params, more in (
        (SamplingParams(seed=1, presence_penalty=1.0, repetition_penalty=1.1), {}),
        (SamplingParams(seed=1, top_p=0.5, min_p=0.01), {"banned_ids": bans}),
    ):
        assert np.array_equal(is_exact(drawn(head, params, **more)[1]), plain)
    assert is_exact(drawn(head, GREEDY, banned_ids=(*bans, MANY))[1])[1].all()


def test_a_drawn_token_from_far_below_is_told_exactly(head: Head) -> None:
    num_rough = 0
    for params in [SamplingParams(seed=seed, temperature=2.0, logprobs=2) for seed in range(12)]:
        result, logits_RV = drawn(head, params, indices=(0, 3))
        num_rough += int((~is_exact(head.rough()[1, list(result.tokens)])).sum())
        exact_V = head.exact()[1]
        for token, thought in zip(result.tokens, result.logprobs, strict=True):
            assert is_exact(logits_RV[1, token])
            apart = exact_V[token] - exact_V.max()
            assert thought.logprob - thought.top[0][1] == pytest.approx(float(apart), abs=1e-5)
    assert num_rough > 0


def test_a_prompt_s_token_is_told_as_a_drawn_one(head: Head) -> None:
    result, _ = drawn(head, SamplingParams(seed=3, temperature=2.0, logprobs=2))
    (token,) = result.tokens
    assert not is_exact(head.rough()[1, token])
    thought = told(head.device, head.rough(), [token] * ROWS, 2, head.refine)
    assert thought is not None
    assert thought[1] == result.logprobs[0]


def test_log_probabilities_change_no_draw(head: Head) -> None:
    for seed in range(8):
        quiet, _ = drawn(head, SamplingParams(seed=seed, temperature=2.0))
        loud, _ = drawn(head, SamplingParams(seed=seed, temperature=2.0, logprobs=5))
        assert quiet.tokens == loud.tokens
