"""Repetition detection: against its definition, and as the end of an answer."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from quire.cache.blocks import BlockPool
from quire.engine.engine import Engine
from quire.request import Finish, Request, SamplingParams
from quire.runner.fake import FakeRunner
from quire.sampling_params import RepetitionDetectionParams
from quire.scheduling.limits import SchedulerLimits
from quire.scheduling.repetition import is_repeating
from quire.scheduling.scheduler import Scheduler


def defined(answer: list[int], limit: RepetitionDetectionParams) -> bool:
    """Some pattern, written `min_count` times, is how the answer ends."""
    for size in range(max(limit.min_pattern_size, 1), limit.max_pattern_size + 1):
        pattern = answer[-size:]
        if len(pattern) == size and answer[-size * limit.min_count :] == pattern * limit.min_count:
            return True
    return False


@st.composite
def limits(drawn: st.DrawFn) -> RepetitionDetectionParams:
    longest = drawn(st.integers(1, 8))
    return RepetitionDetectionParams(longest, drawn(st.integers(0, longest)), drawn(st.integers(2, 4)))


@st.composite
def texts(drawn: st.DrawFn) -> list[int]:
    """Few different tokens, often a pattern again and again at the end."""
    start = drawn(st.lists(st.integers(0, 2), max_size=12))
    pattern = drawn(st.lists(st.integers(0, 2), min_size=1, max_size=9))
    return start + pattern * drawn(st.integers(0, 4)) + pattern[: drawn(st.integers(0, 3))]


@given(texts(), texts(), limits())
@example([1, 1], [1], RepetitionDetectionParams(1, 1, 2))
@example([], [0, 1, 0, 1], RepetitionDetectionParams(2, 2, 2))
def test_the_definition_is_met(prompt: list[int], answer: list[int], limit: RepetitionDetectionParams) -> None:
    if answer:
        assert is_repeating(prompt + answer, len(prompt), limit) == defined(answer, limit)


def ends(script: list[int], **params: object) -> list[tuple[int, Finish | None]]:
    """(tokens, finish) of every sample that draws `script` again and again."""
    runner = FakeRunner(256, 4, lambda draw, index: script[(len(draw.history) - draw.num_prompt) % len(script)])
    engine = Engine(Scheduler(SchedulerLimits(4, 16, 200, 4), BlockPool(100), None), runner)
    asked = SamplingParams(seed=1, max_tokens=60, **params)  # type: ignore[arg-type]
    engine.add(Request("r", (5, 5, 5, 5), asked, (0,)), 0.0)
    tokens, finish = [0] * asked.n, [None] * asked.n
    while engine.has_work:
        for delta in engine.advance(0.0) or ():
            tokens[delta.index] += len(delta.tokens)
            finish[delta.index] = delta.finish
            assert delta.stop_token is None or delta.finish is Finish.STOP
    engine.scheduler.check()
    return list(zip(tokens, finish, strict=True))


def test_an_answer_ends_with_the_token_that_completes_the_repetition() -> None:
    limit = RepetitionDetectionParams(4, 2, 3)
    assert ends([7, 8, 9], repetition_detection=limit, n=2) == [(9, Finish.REPETITION)] * 2
    assert ends([7], repetition_detection=limit) == [(6, Finish.REPETITION)]
    assert ends([7, 8, 9, 10, 11], repetition_detection=limit) == [(60, Finish.LENGTH)]
    assert ends([7]) == [(60, Finish.LENGTH)]
    assert ends([7], repetition_detection=RepetitionDetectionParams()) == [(60, Finish.LENGTH)]


def test_what_ends_for_another_reason_says_that_reason() -> None:
    limit = RepetitionDetectionParams(1, 1, 3)
    assert ends([7, 8, 8, 0], repetition_detection=limit) == [(4, Finish.STOP)]
    assert ends([7, 9, 9], repetition_detection=limit, stop_token_ids=[9]) == [(2, Finish.STOP)]
    assert ends([7], repetition_detection=limit, min_tokens=10) == [(10, Finish.REPETITION)]
    assert ends([0], repetition_detection=limit, ignore_eos=True) == [(3, Finish.REPETITION)]
