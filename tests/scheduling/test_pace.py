"""Steps that keep the inter-token target. Knows: devices whose law is known. Does not know: how chunks are found."""

from __future__ import annotations

from math import inf
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduler_bench import Bench, request
from test_cost import CPU, law, some_shape

from quire.plan import ITL_FACTOR, ITL_FLOOR_S
from quire.scheduling.cost import CostModel, StepShape, num_chunk_pairs, shape_of
from quire.scheduling.pace import HEADROOM, LEAST_CHUNK, LEAST_SHARE, ItlTarget, step_tokens


def learnt(seed: int = 1) -> CostModel:
    random, model = Random(seed), CostModel()
    for _ in range(400):
        shape = some_shape(random)
        model.observe(shape, law(CPU, shape))
    return model


MODEL = learnt()
AUTO = ItlTarget(ITL_FLOOR_S, ITL_FACTOR)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(1, 64), st.integers(0, 50_000), st.integers(0, 8000), st.integers(1, 4096), st.floats(0.01, 5.0))
def test_a_step_is_as_large_as_the_target_allows(
    speaking: int, context: int, start: int, most: int, target: float
) -> None:
    budget = step_tokens(MODEL, speaking, context, start, most, ItlTarget(target))
    assert 1 <= budget <= most

    def seconds(count: int) -> float:
        shape = StepShape(speaking + count, speaking, context + speaking + count + start, num_chunk_pairs(start, count))
        return HEADROOM * MODEL.late * (MODEL.predict(shape) or 0.0)

    count = budget - speaking
    if count > max(LEAST_CHUNK, -(-speaking // LEAST_SHARE)):
        assert seconds(count) <= target
    if budget < most:
        assert seconds(count + 1) > target


def test_nobody_speaks_or_nothing_is_known() -> None:
    assert step_tokens(MODEL, 0, 0, 0, 1024, ItlTarget(0.01)) == 1024
    assert step_tokens(CostModel(), 8, 100, 0, 1024, ItlTarget(0.01)) == 1024


def test_the_target_of_its_own_accord() -> None:
    assert AUTO.seconds(0.001) == ITL_FLOOR_S
    assert AUTO.seconds(0.04) == pytest.approx(0.2)
    assert ItlTarget().seconds(9.0) == inf


@pytest.mark.parametrize("target", [AUTO, ItlTarget(0.15), ItlTarget(0.4)])
def test_long_prompts_do_not_stall_those_who_speak(target: ItlTarget) -> None:
    bench = Bench(blocks=4000, size=16, seqs=32, budget=1024, length=5000, itl_target=target, cost=learnt())
    bench.add(*(request(f"s{number}", 20, max_tokens=300) for number in range(8)))
    bench.step()
    gaps = []
    for number in range(60):
        if number % 15 == 0:
            bench.add(request(f"long{number}", [number, *range(2000)], max_tokens=4))
        step = bench.step()
        assert sum(work.draw is not None for work in step.works) >= 8, "everybody speaks in every step"
        seconds = law(CPU, shape_of(step))
        bench.scheduler.cost.observe(shape_of(step), seconds)
        gaps.append(seconds)
    allowed = 1.05 * target.seconds(law(CPU, StepShape(8, 8, 8 * 60 + 4 * 2000)))
    assert max(gaps) <= allowed
    assert max(gaps) > 0.7 * allowed, "and no smaller than need be"


def test_without_those_who_speak_prompts_are_read_in_whole_steps() -> None:
    bench = Bench(blocks=4000, size=16, seqs=32, budget=1024, length=5000, itl_target=ItlTarget(0.1), cost=learnt())
    bench.add(request("long", list(range(3000)), max_tokens=2))
    assert [bench.step().num_tokens for _ in range(3)] == [1024, 1024, 952]


@pytest.mark.parametrize("noise", [0.05, 0.15])
def test_of_steps_on_a_machine_whose_speed_moves_ninety_nine_in_a_hundred_keep_the_target(noise: float) -> None:
    random, model, target_s = Random(3), learnt(), 0.3
    num_over, num_steps, took = 0, 3000, 0.0
    for number in range(2 * num_steps):
        start = 50 * number % 4096
        count = step_tokens(model, 8, 4000, start, 4096, ItlTarget(target_s)) - 8
        shape = StepShape(8 + count, 8, 4008 + count + start, num_chunk_pairs(start, count))
        seconds = law(CPU, shape) * random.lognormvariate(0.0, noise)
        model.observe(shape, seconds)
        if number >= num_steps:
            num_over += seconds > target_s
            took += seconds
    assert num_over <= 0.015 * num_steps
    assert took / num_steps > target_s / (HEADROOM * 1.6), "and no more is given away than the noise asks for"


def test_what_a_long_prompt_holds_is_no_context_of_those_who_speak() -> None:
    model = learnt()
    budgets = []
    for held in (0, 4000):
        bench = Bench(blocks=8000, budget=4096, length=20_000, itl_target=ItlTarget(0.05), cost=learnt())
        bench.add(request("speaks", 40, max_tokens=4000, ignore_eos=True))
        bench.step()
        bench.add(request("reads", 16_000, max_tokens=4))
        while not (seat := bench.scheduler.running[-1]).num_computed >= held or len(bench.scheduler.running) < 2:
            bench.step()
        step = bench.step()
        start, count = step.works[-1].start, len(step.works[-1].tokens)
        speaker = step.works[0].start
        assert count == step_tokens(model, 1, speaker, start, 4096, ItlTarget(0.05)) - 1
        assert seat.request.id == "reads"
        budgets.append(count)
    assert budgets[1] < budgets[0], "the prompt's own past is read by its own next tokens, and counts once"
