"""A handful of timed steps before the first request, so that the first forecasts are sane.

Knows: a runner and a clock given to it. Does not know: requests, or what the model makes of ids that mean nothing.

The steps write to the first blocks of a pool that nobody holds yet, and nobody is told of them. From cheap to dear,
and only while the next one is expected to fit the budget: a large model is timed less, not later.
"""

from __future__ import annotations

from collections.abc import Callable

from quire.engine.engine import Engine
from quire.plan import Plan
from quire.request import SamplingParams
from quire.scheduling.cost import CostModel, StepShape, shape_of
from quire.step import Draw, Step, Work

BUDGET_S = 0.15
LEAST_RATE = 2e10  # bytes a second that any machine reads weights at: for the first step, of which nothing is known
TOKEN = 1  # any id
GREEDY = SamplingParams(temperature=0.0, seed=0)
# Rows that draw, the tokens that each of them holds, and a prompt's tokens beside them.
STEPS = (
    (1, 1, 0), (1, 1, 0), (0, 0, 32), (4, 8, 0), (0, 0, 128), (16, 8, 0), (16, 8, 64), (1, 120, 0), (0, 0, 512),
    (32, 8, 0), (0, 0, 1024),
)  # fmt: skip


def warm_up(engine: Engine, plan: Plan, clock: Callable[[], float], budget_s: float = BUDGET_S) -> None:
    """Teach the engine's step-time model. The first step of all is not counted: it pays for what is used once."""
    begin = clock()
    least_s = plan.weights.per_token / LEAST_RATE
    samples: list[tuple[StepShape, float]] = []
    guess = CostModel()
    for number, (num_rows, num_held, num_prompt) in enumerate(STEPS):
        step = _step(num_rows, num_held, num_prompt, plan)
        shape = shape_of(step)
        expected_s = max(least_s, guess.predict(shape) or 0.0)
        if not _fits(step, plan) or clock() - begin + expected_s > budget_s:
            break
        start = clock()
        engine.runner.run(step)
        if number:
            samples.append((shape, clock() - start))
            guess.observe(*samples[-1])
    engine.scheduler.cost.calibrate(samples)
    if engine.gate is not None:
        engine.gate.hear((), clock())


def _step(num_rows: int, num_held: int, num_prompt: int, plan: Plan) -> Step:
    """`num_rows` sequences of `num_held` tokens that draw one more, and a prompt that is read whole."""
    works = []
    lengths = [num_held + 1] * num_rows + ([num_prompt] if num_prompt else [])
    num_blocks = 0
    for number, length in enumerate(lengths):
        start = num_held if number < num_rows else 0
        end = num_blocks + -(-length // plan.block_size)
        tokens = [TOKEN] * length
        works.append(
            Work(number, tokens[start:], start, list(range(num_blocks, end)), Draw(GREEDY, (0,), tokens, length))
        )
        num_blocks = end
    return Step(0, tuple(works))


def _fits(step: Step, plan: Plan) -> bool:
    return (
        len(step.works) <= plan.max_num_seqs
        and step.num_tokens <= plan.max_num_batched_tokens
        and step.works[-1].block_table[-1] < plan.num_blocks
        and max(work.start + len(work.tokens) for work in step.works) <= plan.max_model_len
    )
