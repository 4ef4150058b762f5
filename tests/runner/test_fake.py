"""The fake runner's own promises. Knows: which steps are wrong. Does not know: a scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from quire.errors import InternalError
from quire.request import SamplingParams
from quire.runner.fake import FakeRunner, choose_token
from quire.step import Draw, Step, Work

TOKENS = [11, 12, 13, 14, 15, 16]


def work(start: int, end: int, table: list[int], seq_id: int = 1, tokens: Sequence[int] = TOKENS, **more: Any) -> Work:
    """Compute tokens start..end; it draws where `indices` is given."""
    indices = more.pop("indices", None)
    params = SamplingParams(**{"seed": 3, **more.pop("params", {})})
    draw = None if indices is None else Draw(params, indices, list(tokens[:end]), 2, more.pop("banned", ()))
    return Work(seq_id, list(tokens[start:end]), start, table, draw, **more)


def run(runner: FakeRunner, *works: Work, copies: tuple[tuple[int, int], ...] = ()) -> list[tuple[int, ...]]:
    return [result.tokens for result in runner.run(Step(1, works, copies)).works]


def test_tokens_depend_on_seed_index_and_history_alone() -> None:
    whole = run(FakeRunner(100, 4), work(0, 6, [0, 1], indices=(0, 1)))
    runner = FakeRunner(100, 4)
    run(runner, work(0, 3, [7, 5]))
    assert run(runner, work(3, 6, [7, 5], indices=(0, 1))) == whole
    assert whole[0][0] != whole[0][1]
    other = run(FakeRunner(100, 4), work(0, 6, [0, 1], indices=(0,), params={"seed": 4}))
    assert other[0][0] != whole[0][0]


def test_greedy_samples_say_the_same() -> None:
    (tokens,) = run(FakeRunner(100, 4), work(0, 6, [0, 1], indices=(0, 1, 2), params={"temperature": 0.0}))
    assert len(set(tokens)) == 1


def test_banned_tokens_are_not_drawn() -> None:
    draw = Draw(SamplingParams(seed=1), (0,), [1, 2, 3], 3)
    free = choose_token(draw, 0, 10)
    banned = Draw(SamplingParams(seed=1), (0,), [1, 2, 3], 3, (free,))
    assert choose_token(banned, 0, 10) == (free + 1) % 10
    with pytest.raises(InternalError, match="banned"):
        choose_token(Draw(SamplingParams(seed=1), (0,), [1], 1, (0, 1)), 0, 2)


def test_a_choice_of_ones_own() -> None:
    runner = FakeRunner(block_size=4, choose=lambda draw, index: draw.position * 10 + index)
    assert run(runner, work(0, 6, [0, 1], indices=(0, 4))) == [(60, 64)]


def test_logprobs_where_they_are_asked_for() -> None:
    runner = FakeRunner(block_size=4)
    asked = work(0, 6, [0, 1], indices=(0,), params={"logprobs": 1}, prompt_logprobs=0, successors=(12,))
    (result,) = runner.run(Step(1, (asked,))).works
    assert [entry.token for entry in result.logprobs] == list(result.tokens)
    assert [(entry.token, entry.top) for entry in result.prompt_logprobs] == [(12, ())]


def test_reading_what_was_never_written() -> None:
    with pytest.raises(InternalError, match="position 0, block 3"):
        run(FakeRunner(block_size=4), work(4, 6, [3, 4], indices=(0,)))


def test_reading_another_prefix() -> None:
    runner = FakeRunner(block_size=4)
    run(runner, work(0, 4, [0]))
    with pytest.raises(InternalError, match="position 3, block 0"):
        run(runner, work(4, 5, [0, 1], 2, [11, 12, 13, 99, 15], indices=(0,)))


def test_reading_another_prefix_shows_at_the_latest_when_it_draws() -> None:
    runner = FakeRunner(block_size=4)
    wrong = [11, 12, 13, 99, 15, 16]
    run(runner, work(0, 4, [0]))
    run(runner, work(4, 5, [0, 1], 2, wrong))
    with pytest.raises(InternalError, match="not the sequence's tokens"):
        run(runner, work(5, 6, [0, 1], 2, wrong, indices=(0,)))


def test_equal_tokens_at_other_positions_are_not_equal() -> None:
    runner = FakeRunner(block_size=2)
    same = [5] * 6
    run(runner, work(0, 4, [0, 1], 1, same))
    with pytest.raises(InternalError, match="does not hold"):
        run(runner, work(4, 5, [1, 0, 2], 2, same, indices=(0,)))


def test_a_block_may_not_be_used_before_it_is_computed() -> None:
    runner = FakeRunner(block_size=4)
    with pytest.raises(InternalError, match="does not hold"):
        run(runner, work(0, 4, [0]), work(4, 6, [0, 1], 2, indices=(0,)))


def test_a_slot_may_not_be_written_twice_in_one_step() -> None:
    runner = FakeRunner(block_size=4)
    with pytest.raises(InternalError, match="written twice"):
        run(runner, work(0, 2, [0]), work(0, 2, [0], 2))


def test_a_missing_copy_shows_and_a_copy_helps() -> None:
    for copies in ((), ((0, 1),)):
        runner = FakeRunner(block_size=4)
        run(runner, work(0, 2, [0]))
        left, right = [11, 12, 21, 22], [11, 12, 31, 32]
        mine = 1 if copies else 0
        run(runner, work(2, 3, [mine], 1, left, indices=(0,)), copies=copies)
        run(runner, work(2, 3, [0], 2, right, indices=(0,)))
        if copies:
            run(runner, work(3, 4, [1], 1, left, indices=(0,)))
        else:
            with pytest.raises(InternalError, match="position 2"):
                run(runner, work(3, 4, [0], 1, left, indices=(0,)))


def test_a_block_reused_too_early_shows() -> None:
    runner = FakeRunner(block_size=2)
    run(runner, work(0, 4, [0, 1]))
    run(runner, work(0, 2, [1], 2, [70, 71]))
    with pytest.raises(InternalError, match="position 2, block 1"):
        run(runner, work(4, 5, [0, 1, 2], indices=(0,)))
