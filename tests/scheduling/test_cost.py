"""The step-time model against devices whose law is known. Knows: laws and noise. Does not know: how it fits them."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.request import SamplingParams
from quire.scheduling.cost import Coefficients, CostModel, StepShape, num_chunk_pairs, shape_of
from quire.step import Draw, Step, Work

CPU = Coefficients(25e-3, 0.05e-3, 1.1e-3, 0.2e-3, 0.35e-6, 2e-8)


def law(truth: Coefficients, shape: StepShape, knee: int = 8) -> float:
    return (
        truth.fixed_s
        + truth.token_s * shape.num_tokens
        + truth.extra_token_s * max(0, shape.num_tokens - knee)
        + truth.draw_s * shape.num_draws
        + truth.context_token_s * shape.num_context_tokens
        + truth.pair_s * shape.num_pairs
    )


def some_shape(random: Random) -> StepShape:
    num_draws = random.randint(0, 64)
    context = num_draws * random.randint(10, 2000)
    if num_draws and random.random() < 0.5:
        return StepShape(num_draws, num_draws, context)
    start, count = random.randint(0, 4000), random.randint(2, 1024)
    return StepShape(num_draws + count, num_draws + 1, context + start + count, num_chunk_pairs(start, count))


def errors(model: CostModel, truth: Coefficients, random: Random, count: int = 200) -> list[float]:
    found = []
    for _ in range(count):
        shape = some_shape(random)
        predicted = model.predict(shape)
        assert predicted is not None
        found.append(abs(predicted / law(truth, shape) - 1))
    return sorted(found)


times = st.floats(0.0, 1e-2, allow_subnormal=False)
truths = st.builds(
    Coefficients,
    st.floats(1e-4, 0.1),
    st.floats(0.0, 1e-3, allow_subnormal=False),
    st.floats(0.0, 2e-3, allow_subnormal=False),
    st.floats(0.0, 1e-3, allow_subnormal=False),
    st.floats(0.0, 1e-5, allow_subnormal=False),
    st.floats(0.0, 1e-6, allow_subnormal=False),
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(truths, st.integers(0, 2**32))
def test_it_finds_any_law_under_noise(truth: Coefficients, seed: int) -> None:
    random, model = Random(seed), CostModel()
    for _ in range(600):
        shape = some_shape(random)
        model.observe(shape, law(truth, shape) * random.uniform(0.9, 1.1))
    found = errors(model, truth, random)
    assert found[len(found) // 2] < 0.05
    assert found[len(found) * 9 // 10] < 0.12


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 4096), st.integers(0, 256), st.integers(0, 10**6), st.integers(0, 10**7),
            st.floats(-1.0, 1e4) | st.just(math.nan) | st.just(math.inf),
        ),
        max_size=80,
    )
)  # fmt: skip
def test_whatever_it_is_told_it_stays_positive_and_small(told: list[tuple[int, int, int, int, float]]) -> None:
    model = CostModel()
    for tokens, draws, context, pairs, seconds in told:
        model.observe(StepShape(tokens, draws, context, pairs), seconds)
        kept = model.coefficients
        for value in (getattr(kept, name) for name in Coefficients.__slots__):
            assert value >= 0.0
            assert math.isfinite(value)
    assert sum(len(row) for row in model._information) + len(model._theta) + len(model._target) == 48


def test_a_handful_of_samples_is_enough_to_start() -> None:
    random = Random(1)
    shapes = [
        StepShape(1, 1, 10), StepShape(1, 1, 2000), StepShape(8, 8, 80), StepShape(32, 32, 320),
        StepShape(64, 1, 64, num_chunk_pairs(0, 64)), StepShape(512, 1, 512, num_chunk_pairs(0, 512)),
        StepShape(512, 1, 2512, num_chunk_pairs(2000, 512)), StepShape(32, 32, 32000),
    ]  # fmt: skip
    model = CostModel.calibrated((shape, law(CPU, shape) * random.uniform(0.98, 1.02)) for shape in shapes)
    assert errors(model, CPU, random)[180] < 0.12


def test_before_the_first_sample_it_does_not_know() -> None:
    model = CostModel()
    assert model.predict(StepShape(1, 1, 1)) is None
    assert model.observe(StepShape(1, 1, 1), 0.0) is None
    assert model.num_samples == 0
    assert CostModel.calibrated([]).predict(StepShape(1, 1, 1)) is None


def test_one_sample_is_believed_of_its_own_kind() -> None:
    model = CostModel()
    model.observe(StepShape(4, 4, 400), 0.03)
    assert model.predict(StepShape(4, 4, 400)) == pytest.approx(0.03, rel=0.01)


def test_hours_of_decoding_do_not_wash_away_what_a_prompt_costs() -> None:
    random, model = Random(2), CostModel()
    for _ in range(400):
        shape = some_shape(random)
        model.observe(shape, law(CPU, shape) * random.uniform(0.95, 1.05))
    for number in range(20_000):
        shape = StepShape(8, 8, 8 * (100 + number % 500))
        model.observe(shape, law(CPU, shape) * random.uniform(0.95, 1.05))
    prompt = StepShape(1024, 1, 1024, num_chunk_pairs(0, 1024))
    assert model.predict(prompt) == pytest.approx(law(CPU, prompt), rel=0.2)


def test_a_stalled_machine_now_and_then_changes_little() -> None:
    random, model = Random(3), CostModel()
    for number in range(1500):
        shape = some_shape(random)
        stalled = 20.0 if number % 25 == 24 else 1.0
        model.observe(shape, law(CPU, shape) * stalled * random.uniform(0.95, 1.05))
    assert errors(model, CPU, random)[100] < 0.12


def test_a_machine_that_becomes_half_as_fast_is_followed() -> None:
    random, model = Random(4), CostModel()
    slow = Coefficients(*(2 * getattr(CPU, name) for name in Coefficients.__slots__))
    for truth in (CPU, slow):
        for _ in range(600):
            shape = some_shape(random)
            model.observe(shape, law(truth, shape) * random.uniform(0.95, 1.05))
        assert errors(model, truth, random)[180] < 0.12


def test_a_neighbour_on_the_same_cores_is_noticed_within_thirty_steps() -> None:
    random, model = Random(6), CostModel()
    for number in range(430):
        shape = some_shape(random)
        model.observe(shape, law(CPU, shape) * (1 if number < 400 else 2) * random.uniform(0.95, 1.05))
    slow = Coefficients(*(2 * getattr(CPU, name) for name in Coefficients.__slots__))
    assert errors(model, slow, random)[180] < 0.25


def test_it_says_how_far_off_it_has_been() -> None:
    random, model = Random(5), CostModel()
    for _ in range(1500):
        shape = some_shape(random)
        model.observe(shape, law(CPU, shape) * random.uniform(0.8, 1.2))
    assert 0.05 < model.error_mean < 0.2
    assert 0.1 < model.error_p90 < 0.35
    assert model.error_mean < model.error_p90


def test_the_shape_of_a_step() -> None:
    draw = Draw(SamplingParams(seed=0), (0,), [1], 1)
    step = Step(1, (Work(1, [5, 6, 7], 10, []), Work(2, [5], 20, [], draw)))
    assert shape_of(step) == StepShape(4, 1, 13 + 21, 11 + 12 + 13)


@pytest.mark.parametrize("spread", [0.0, 0.03, 0.06])
def test_no_more_steps_are_late_than_promised_in_the_first_minutes_nor_later(spread: float) -> None:
    num_late, num_steps = 0, 0
    for seed in range(8):
        random, model = Random(seed), CostModel()
        for _ in range(20):
            shape = StepShape(8, 8, 500)
            model.observe(shape, law(CPU, shape) * math.exp(random.gauss(0.0, spread)))
        for number in range(240):
            start = 48 * number % 4000
            shape = StepShape(48, 8, 5000 + start, num_chunk_pairs(start, 40))
            seconds = law(CPU, shape) * math.exp(random.gauss(0.0, spread))
            num_late += seconds > model.late * (model.predict(shape) or 0.0)
            num_steps += 1
            model.observe(shape, seconds)
        for _ in range(1500):
            model.observe(shape, law(CPU, shape) * math.exp(random.gauss(0.0, spread)))
        assert 1.0 <= model.late < 1.3
        assert spread or model.late < 1.1  # it does not stay cautious without reason
    assert num_late <= 0.015 * num_steps
