"""Every two features of a request together: an answer that obeys both, or a refusal that names both.

The bundled model answers. Beside the laws of `feature_pairs`, every single draw that is made on the way is compared
with its definition (`kernels/reference`), under the masks of the real grammars.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from feature_pairs import FEATURES, Feature, Told, ask, read
from served import EOS, TOKENIZER, Answer, Served, exchange, served

from quire.engine.grammars import ThreadKeeper
from quire.kernels.reference.sample import sample as reference
from quire.sampling.refining import Refine
from quire.server.fields import PAIRS
from quire.settings import EngineSettings
from quire.step import Draw, WorkResult

TOGETHER = 24
BY_NAME = {feature.name: feature for feature in FEATURES}


class CheckedSampler:
    """A sampler whose every result is compared with the definition's."""

    def __init__(self, sampler: Any) -> None:
        self._sampler = sampler
        self.num_rows = 0
        self.wrong: list[str] = []

    def draw(
        self,
        logits_RV: np.ndarray,
        draws: Sequence[Draw],
        place: int = 0,
        mask_RW: np.ndarray | None = None,
        refine: Refine | None = None,
    ) -> list[WorkResult]:
        before, masks = logits_RV.copy(), None if mask_RW is None else mask_RW.copy()
        results = self._sampler.draw(logits_RV, draws, place, mask_RW, refine)
        for row, (how, result) in enumerate(zip(draws, results, strict=True)):
            form = None
            if how.constraint is not None and masks is not None:
                form = np.unpackbits(masks[row].view(np.uint8), bitorder="little")[: before.shape[1]].astype(bool)
            self.num_rows += 1
            if how.num_candidates:  # a search draws nothing
                continue
            expected = reference(before[row], how, form)
            if result != expected:
                self.wrong.append(f"{how.params}: {result} is not {expected}")
        return list(results)

    def finish(self, num_places: int) -> None:
        self._sampler.finish(num_places)


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    engine = EngineSettings(max_model_len=512, max_num_seqs=48, max_num_batched_tokens=512, threads=1)
    with served(engine=engine, keep=ThreadKeeper) as running:
        yield running


@pytest.fixture(scope="module")
def checked(server: Served) -> CheckedSampler:
    sampler = CheckedSampler(server.engine.runner._sampler)  # type: ignore[attr-defined]
    server.engine.runner._sampler = sampler  # type: ignore[attr-defined]
    return sampler


@pytest.fixture(scope="module")
def answers(server: Served, checked: CheckedSampler) -> dict[tuple[str, str], tuple[dict[str, Any], Answer]]:
    """What came back for each pair, and for each feature alone."""
    pairs = list(itertools.combinations_with_replacement(FEATURES, 2))
    asked = [ask(*pair) for pair in pairs]

    async def all_of(some: list[tuple[str, dict[str, Any], dict[str, str]]]) -> list[Answer]:
        return await asyncio.gather(
            *[exchange(server.app, "POST", path, [json.dumps(body).encode()], head) for path, body, head in some]
        )

    slices = [asked[first : first + TOGETHER] for first in range(0, len(asked), TOGETHER)]
    got = [answer for each in slices for answer in server.do(all_of(each))]
    return {
        (one.name, other.name): (body, answer)
        for (one, other), (_, body, _), answer in zip(pairs, asked, got, strict=True)
    }


def refusal(one: str, other: str) -> set[str]:
    """The fields by which the two are refused; empty where they are not."""
    mine, yours = [{*BY_NAME[name].fields, *BY_NAME[name].headers} for name in (one, other)]
    for first, second in [pair.fields for pair in PAIRS]:
        if one != other and ((first in mine and second in yours) or (second in mine and first in yours)):
            return {first, second}
    return set()


def names(error: dict[str, Any], field: str) -> bool:
    """Whether an error says `field`, as its sender or as people write it."""
    said = f"{error['message']} {error['param']}".replace("_", " ")
    return field.removeprefix("use_").replace("_", " ") in said


def laws(told: Told, *features: Feature) -> None:
    for feature in features:
        for choice in told.choices:
            feature.law(told, choice)


def test_every_pair_is_answered_as_both_want_or_refused_by_both_names(
    answers: dict[tuple[str, str], tuple[dict[str, Any], Answer]],
) -> None:
    problems = []
    for (one, other), (body, answer) in answers.items():
        if answer.status == 400:
            fields = refusal(one, other)
            if not fields or not all(names(answer.error, each) for each in fields):
                problems.append(f"{one} + {other} is refused: {answer.error}")
            continue
        if answer.status != 200 or refusal(one, other):
            problems.append(f"{one} + {other}: {answer.status} {answer.body[:200]!r}")
            continue
        try:
            told = read(answer, body)
            assert all(choice.finish for choice in told.choices)
            laws(told, BY_NAME[one], BY_NAME[other])
        except (AssertionError, KeyError, ValueError) as error:
            problems.append(f"{one} + {other}: {type(error).__name__} {error} {answer.body[:300]!r}")
    assert not problems, f"{len(problems)} of {len(answers)}\n" + "\n".join(problems)


def test_every_draw_was_the_one_that_is_defined(
    answers: dict[tuple[str, str], tuple[dict[str, Any], Answer]], checked: CheckedSampler
) -> None:
    assert not checked.wrong, checked.wrong[:5]
    assert checked.num_rows > 10 * len(answers)


def test_nothing_is_left_behind(server: Served, answers: dict[tuple[str, str], tuple[dict[str, Any], Answer]]) -> None:
    assert server.is_idle()
    server.engine.scheduler.check()


def test_what_leaves_nothing_to_go_on_with_is_the_callers_to_mend(server: Served) -> None:
    """The form wants "true" or "false", the allow-list has neither: seen only when the answer comes to it."""
    body = {"prompt": "x", "max_tokens": 20, **BY_NAME["response_format"].fields}
    allowed = [token for token in range(4096) if "e" not in TOKENIZER.token_text(token) or token == EOS]
    answer = server.post("/v1/completions", {**body, "allowed_token_ids": allowed})
    assert (answer.status, answer.error["code"]) == (400, "nothing_allowed")
    events = server.post("/v1/completions", {**body, "allowed_token_ids": allowed, "stream": True}).events()
    assert [event["error"]["code"] for event in events if "error" in event] == ["nothing_allowed"]
