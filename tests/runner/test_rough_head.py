"""An engine whose head is in two planes: who asks for exact logits, and that prompts and draws are told alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from quire import LLM, SamplingParams
from quire.models import Model

PROMPT = [1, 40, 300, 7, 9, 2000]


CALLS: list[int] = []


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    """An engine that writes down how many rows of logits each call of `refine` was about."""
    really = Model.refine

    def refine(self: Model, device: Any, arena: Any, logits_RV: Any, *args: Any) -> None:
        CALLS.append(len(logits_RV))
        really(self, device, arena, logits_RV, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Model, "refine", refine)
        llm = LLM(quantization="int4", head_quantization="int4x2", threads=2, max_model_len=256, prefix_cache=False)
        yield llm
        llm.close()


@pytest.fixture
def asked() -> list[int]:
    CALLS.clear()
    return CALLS


def test_only_who_needs_more_than_the_best_asks(llm: LLM, asked: list[int]) -> None:
    llm.generate([PROMPT], SamplingParams(temperature=0, max_tokens=3, ignore_eos=True))
    llm.generate([PROMPT], SamplingParams(seed=1, max_tokens=3, ignore_eos=True, repetition_penalty=1.1))
    assert asked == []
    allowed = [11, 12, 13]
    (answer,) = llm.generate([PROMPT], SamplingParams(temperature=0, max_tokens=3, allowed_token_ids=allowed))
    assert set(answer.outputs[0].token_ids) <= set(allowed)
    assert asked == [1, 1, 1]
    llm.generate([PROMPT], SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0))
    assert asked[3:] == [len(PROMPT) - 1]


def test_a_drawn_token_and_a_prompt_s_are_told_alike(llm: LLM, asked: list[int]) -> None:
    hot = SamplingParams(temperature=2.0, seed=3, max_tokens=24, ignore_eos=True, logprobs=0)
    drawn = llm.generate([PROMPT], hot)[0].outputs[0]
    assert asked  # some token came from far below the best
    again = llm.generate([[*PROMPT, *drawn.token_ids]], SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0))
    told = [each.logprob for each in llm_logprobs(again[0].prompt_logprobs)[-len(drawn.token_ids) :]]
    assert told == [each.logprob for each in llm_logprobs(drawn.logprobs)]


def llm_logprobs(entries: Any) -> list[Any]:
    """The told tokens, one each."""
    return [next(iter(each.values())) if isinstance(each, dict) else each for each in entries if each is not None]
