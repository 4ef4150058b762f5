"""Repetition detection: against its definition, and as the end of an answer."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quire.cache.blocks import BlockPool
from quire.engine.engine import Engine
from quire.request import Finish, Request, SamplingParams
from quire.runner.fake import FakeRunner
from quire.sampling_params import RepetitionDetectionParams
from quire.scheduling.limits import SchedulerLimits
from quire.scheduling.repetition import STUCK_TOKENS, is_repeating, repeats_at_the_end
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


# ---- answers that are stuck, which is only counted -----------------------------------------------------------------


@pytest.mark.parametrize("pattern", [1, 2, 3, 7, 8])
def test_a_pattern_without_end_is_seen_once_it_is_long_enough(pattern: int) -> None:
    tokens = [5] * 100 + [9] + [number % pattern for number in range(STUCK_TOKENS)]
    assert repeats_at_the_end(tokens, 100)
    assert not repeats_at_the_end(tokens, 102)  # one of them is the prompt's
    assert not repeats_at_the_end([*tokens, 77], 100)
    broken = tokens.copy()
    broken[-STUCK_TOKENS // 2] = 77
    assert not repeats_at_the_end(broken, 100)


def test_patterns_of_nine_and_more_are_text() -> None:
    assert not repeats_at_the_end([number % 9 for number in range(300)], 0)


@pytest.mark.parametrize("detects", [False, True])
def test_a_stuck_answer_is_counted_once_and_goes_on(detects: bool) -> None:
    """From token 30 on it says the same; an engine that watches every token for the request's sake counts it too."""
    runner = FakeRunner(100, 4, lambda draw, index: 7 if len(draw.history) > 30 else len(draw.history))
    engine = Engine(Scheduler(SchedulerLimits(4, 16, 400, 4), BlockPool(400), None), runner)
    limit = RepetitionDetectionParams(max_pattern_size=2, min_count=150) if detects else None
    params = SamplingParams(seed=1, max_tokens=200, ignore_eos=True, repetition_detection=limit)
    engine.add(Request("stuck", (1, 2), params), 0.0)
    counted, finishes, num_tokens = [], [], 0
    while engine.has_work:
        report = engine.step(0.0)
        assert report is not None
        num_tokens += sum(len(delta.tokens) for delta in report.deltas)
        finishes += [delta.finish for delta in report.deltas if delta.finish]
        counted += [num_tokens] * report.stats.num_repeating
    assert len(counted) == 1
    assert 30 + STUCK_TOKENS <= counted[0] <= 30 + STUCK_TOKENS + 4
    assert finishes == [Finish.REPETITION if detects else Finish.LENGTH]
