"""What running sequences will still take. Knows: sums by hand and by simulation. Does not know: schedulers, but one."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduler_bench import Bench, blind, request

from quire.scheduling.growth import FIRST_GUESS, OutputLengths, peak_growth


def slowly(futures: list[tuple[int, int]]) -> int:
    """The peak with blocks of one token, step by step."""
    held = [blocks for _, blocks in futures]
    now = peak = sum(held)
    for step in range(1, max((left for left, _ in futures), default=0) + 1):
        now = sum(blocks + step for (left, _), blocks in zip(futures, held, strict=True) if left >= step)
        peak = max(peak, now)
    return peak - sum(held)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 60)), max_size=12))
def test_the_peak_is_what_a_simulation_finds(futures: list[tuple[int, int]]) -> None:
    assert peak_growth(futures, 1) == slowly(futures)


def test_the_peak_in_blocks() -> None:
    assert peak_growth([], 16) == 0
    assert peak_growth([(32, 5)], 16) == 2
    assert peak_growth([(16, 9), (160, 1)], 16) == 2, "the first makes room for the second"
    assert peak_growth([(16, 2), (160, 1)], 16) == 8


def test_before_anything_has_ended_answers_are_guessed_and_capped() -> None:
    lengths = OutputLengths()
    assert lengths.num_left(0, 1000) == FIRST_GUESS
    assert lengths.num_left(0, 10) == 10
    assert lengths.num_left(500, 10_000) == 500
    assert lengths.num_left(500, 1) == 1


def test_lengths_are_learnt() -> None:
    random, lengths = Random(1), OutputLengths()
    for _ in range(500):
        lengths.record(random.choice((20, 200)))
    assert lengths.num_left(0, 10_000) == pytest.approx(110, rel=0.15)
    assert lengths.num_left(50, 10_000) == pytest.approx(150, rel=0.15)
    assert lengths.num_left(300, 10_000) == 300, "longer than any before: as much again"


def test_newer_lengths_count_more() -> None:
    lengths = OutputLengths()
    for length in [10] * 1000 + [1000] * 1000:
        lengths.record(length)
    assert lengths.num_left(0, 10_000) > 900


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 10**6), max_size=50), st.integers(0, 10**6), st.integers(1, 10**6))
def test_what_is_left_is_always_possible(seen: list[int], so_far: int, most: int) -> None:
    lengths = OutputLengths()
    for length in seen:
        lengths.record(length)
    assert 1 <= lengths.num_left(so_far, most) <= most


def test_admission_foresees_growth_and_rarely_needs_to_put_anyone_back() -> None:
    def run(foresees: bool) -> tuple[int, int]:
        random = Random(3)
        bench = Bench(blocks=120, size=4, seqs=32, budget=256, cache=False)
        if not foresees:
            blind(bench)
        requests = [request(str(n), [n, 5, 6], max_tokens=random.randint(10, 90)) for n in range(120)]
        bench.add(*requests)
        steps = bench.run(limit=5000)
        return sum(step.num_tokens for step in steps), len(steps)

    (computed, num_steps), (blindly, num_blind_steps) = run(True), run(False)
    assert computed < blindly
    assert num_steps < 1.35 * num_blind_steps
