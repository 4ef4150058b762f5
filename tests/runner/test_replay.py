"""A replayed step is the step, bit for bit: sizes that change, blocks that grow and move, memory that is replaced.

Knows: the runner with and without recordings, on the bundled model. Does not know: which launches a program holds.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from quire.engine.build import build_engine
from quire.engine.engine import Engine
from quire.hardware import probe
from quire.llm import BUNDLED
from quire.model_spec import read_model_spec
from quire.models import Model
from quire.ops.arena import Arena
from quire.ops.kv_cache import KVCache
from quire.plan import HEAD_ROWS, plan
from quire.request import Request, SamplingParams
from quire.runner import replay
from quire.runner.inputs import Machine
from quire.runner.runner import ModelRunner
from quire.settings import EngineSettings
from quire.step import Draw, Step, StepResult, Work

BLOCK_SIZE = 16
GREEDY = SamplingParams(temperature=0.0, seed=0, logprobs=3)


def make_engine(num_blocks: int = 600, threads: int = 1, **options: object) -> Engine:
    spec = read_model_spec(BUNDLED)
    kv_bytes = num_blocks * BLOCK_SIZE * spec.kv_bytes_per_token("bfloat16")
    settings = EngineSettings(dtype="bfloat16", kv_cache_memory_bytes=kv_bytes, threads=threads, **options)  # type: ignore[arg-type]
    return build_engine(plan(settings, probe(), spec), BUNDLED).engine


@pytest.fixture(scope="module")
def built() -> Iterator[ModelRunner]:
    """A runner whose model and device the tests share; each makes its own cache and arena."""
    runner = make_engine(threads=2).runner
    assert isinstance(runner, ModelRunner)
    yield runner
    runner.machine.device.close()


def make_machine(built: ModelRunner, num_blocks: int = 300, poison: bool = False) -> Machine:
    spec = built.model.spec
    kv = KVCache(spec.num_layers, num_blocks, BLOCK_SIZE, spec.num_kv_heads, spec.head_dim)
    return Machine(built.machine.device, Arena(poison), kv, BLOCK_SIZE)


class Both:
    """One runner that replays and one that does not, told to do the same and compared."""

    def __init__(self, built: ModelRunner, **options: int) -> None:
        self.replaying = ModelRunner(built.model, make_machine(built, **options))
        self.plain = ModelRunner(built.model, make_machine(built, **options), replays=False)
        self.histories: list[list[int]] = []
        self.tables: list[list[int]] = []
        self.num_steps = 0

    def run(self, works: list[Work], copies: tuple[tuple[int, int], ...] = ()) -> StepResult:
        self.num_steps += 1
        step = Step(self.num_steps, tuple(works), copies)
        result, wanted = self.replaying.run(step), self.plain.run(step)
        assert result == wanted  # tokens, and log probabilities to the bit
        return result

    def begin(self, prompt: list[int], blocks: list[int]) -> int:
        """A new sequence: its prompt is computed, its first token drawn; its number."""
        self.histories.append(list(prompt))
        self.tables.append(blocks)
        number = len(self.histories) - 1
        draw = Draw(GREEDY, (0,), self.histories[number], len(prompt))
        result = self.run([Work(number, prompt, 0, blocks, draw)])
        self.histories[number].append(result.works[0].tokens[0])
        return number

    def decode(self, numbers: list[int]) -> None:
        """One further token for each of these sequences, in this order."""
        works = []
        for number in numbers:
            history = self.histories[number]
            draw = Draw(GREEDY, (0,), history, 1)
            works.append(Work(number, history[-1:], len(history) - 1, self.tables[number], draw))
        for number, outcome in zip(numbers, self.run(works).works, strict=True):
            self.histories[number].append(outcome.tokens[0])

    @property
    def recorded(self) -> dict[int, object]:
        assert self.replaying._replay is not None
        return dict(self.replaying._replay._recorded)


def tokens(seed: int, count: int) -> list[int]:
    return [random.Random(seed * 1000 + place).randrange(3, 4000) for place in range(count)]


def test_steps_of_every_size_in_any_order(built: ModelRunner) -> None:
    both = Both(built)
    rng = random.Random(3)
    for number in range(6):
        both.begin(tokens(number, rng.randrange(1, 60)), [number * 10 + place for place in range(10)])
    for _ in range(40):
        numbers = rng.sample(range(6), rng.randrange(1, 7))
        both.decode(numbers)
    assert set(both.recorded) == {1, 2, 3, 4, 5, 6}


def test_a_size_is_recorded_once_and_replayed_from_then_on(built: ModelRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    forward = Model.forward
    monkeypatch.setattr(Model, "forward", lambda self, step: calls.append(len(step.ids_T)) or forward(self, step))
    both = Both(built)
    both.begin(tokens(1, 5), [0, 1, 2])
    both.begin(tokens(2, 5), [3, 4, 5])
    for _ in range(4):
        both.decode([0, 1])  # the larger first: it grows the arena
        both.decode([0])
    assert calls == [2, 1]


def test_blocks_may_grow_move_and_be_shared(built: ModelRunner) -> None:
    both = Both(built)
    first = both.begin(tokens(1, 15), [7])
    for block in (3, 11, 5):
        for _ in range(5):
            if len(both.histories[first]) > len(both.tables[first]) * BLOCK_SIZE:
                both.tables[first].append(block)
            both.decode([first])
        both.tables[first].append(block)
    # Moved: the same tokens in other blocks, by copies done before the step.
    old, new = both.tables[first], [20 + place for place in range(len(both.tables[first]))]
    both.tables[first] = new
    history = both.histories[first]
    draw = Draw(GREEDY, (0,), history, 1)
    both.run([Work(first, history[-1:], len(history) - 1, new, draw)], tuple(zip(old, new, strict=True)))
    # Shared: a second sequence reads the first one's blocks.
    both.histories.append(list(history))
    both.tables.append([*new[: (len(history) - 1) // BLOCK_SIZE], 40, 41])
    both.run([Work(9, history[-1:], len(history) - 1, new, draw)])
    source = new[(len(history) - 1) // BLOCK_SIZE]
    both.run(
        [
            Work(first, history[-1:], len(history) - 1, new, draw),
            Work(1, history[-1:], len(history) - 1, both.tables[1], draw),
        ],
        ((source, 40),),
    )


def test_a_table_may_outgrow_the_width(built: ModelRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "FIRST_TABLE_WIDTH", 2)
    both = Both(built)
    number, short = both.begin(tokens(1, 30), [8, 9]), both.begin(tokens(2, 3), [1])
    both.decode([number, short])
    before = both.recorded
    both.tables[number].append(4)
    for _ in range(5):
        both.decode([number, short])
    assert both.recorded[2] is not before[2]
    both.tables[number] += [5, 6]
    both.decode([number])
    assert set(both.recorded) == {1}


def test_a_buffer_that_grows_ends_the_recordings(built: ModelRunner) -> None:
    both = Both(built)
    number = both.begin(tokens(1, 3), [0, 1, 2])
    both.decode([number])
    before = both.recorded
    both.decode([number])
    assert both.recorded[1] is before[1]
    both.begin(tokens(2, 100), [10 + place for place in range(7)])
    both.decode([number])
    assert both.recorded[1] is not before[1]


def test_a_poisoned_arena_is_never_replayed(built: ModelRunner) -> None:
    runner = ModelRunner(built.model, make_machine(built, poison=True))
    draw = Draw(GREEDY, (0,), [5, 6], 1)
    for _ in range(2):
        assert runner.run(Step(1, (Work(0, [5], 0, [0], draw),))).works[0].error is None
    assert runner._replay is not None
    assert not runner._replay._recorded


@pytest.mark.parametrize("kind", ["prompt", "no draw", "told", "many"])
def test_other_steps_are_run_op_by_op(built: ModelRunner, kind: str) -> None:
    both = Both(built)
    draw = Draw(GREEDY, (0,), [5, 6], 2)
    if kind == "prompt":
        works = [Work(0, [5], 0, [0], draw), Work(1, [5, 6], 0, [1], draw)]
    elif kind == "no draw":
        works = [Work(0, [5], 0, [0], draw), Work(1, [5], 0, [1])]
    elif kind == "told":
        works = [Work(0, [5], 0, [0], draw, 2, [6])]
    else:
        works = [Work(number, [5], 0, [number], draw) for number in range(HEAD_ROWS + 1)]
    result = both.run(works)
    assert not both.recorded
    assert len(result.works) == len(works)


def test_as_many_as_a_head_are_replayed(built: ModelRunner) -> None:
    both = Both(built)
    for token in (5, 9):
        draws = [Draw(GREEDY, (0,), [token + number, 6], 2) for number in range(HEAD_ROWS)]
        both.run([Work(number, [draw.history[0]], 0, [number], draw) for number, draw in enumerate(draws)])
    assert set(both.recorded) == {HEAD_ROWS}


def test_a_wrong_block_is_refused_at_replay_too(built: ModelRunner) -> None:
    runner = ModelRunner(built.model, make_machine(built, num_blocks=4))
    draw = Draw(GREEDY, (0,), [5, 6], 1)
    good, wrong = (Step(1, (Work(0, [5], 0, [block], draw),)) for block in (3, 4))
    wanted = runner.run(good)
    with pytest.raises(ValueError, match="outside the cache"):
        runner.run(wrong)
    assert runner.run(good) == wanted


def test_a_first_step_that_fails_records_nothing(built: ModelRunner) -> None:
    runner = ModelRunner(built.model, make_machine(built, num_blocks=4))
    draw = Draw(GREEDY, (0,), [5, 6], 1)
    with pytest.raises(ValueError, match="outside the cache"):
        runner.run(Step(1, (Work(0, [5], 0, [9], draw),)))
    assert runner._replay is not None
    assert not runner._replay._recorded
    assert runner.run(Step(2, (Work(0, [5], 0, [0], draw),))).works[0].tokens


def serve(engine: Engine, requests: list[Request]) -> dict[tuple[str, int], list[object]]:
    """Requests arrive one a step; all that is said of each sample."""
    said: dict[tuple[str, int], list[object]] = {}
    waiting = list(requests)
    while waiting or engine.has_work:
        if waiting:
            engine.add(waiting.pop(0), 0.0)
        report = engine.step(0.0)
        for delta in report.deltas if report else ():
            said.setdefault((delta.request_id, delta.index), []).extend([*delta.tokens, *delta.logprobs, delta.finish])
    engine.scheduler.check()
    return said


def test_engines_that_replay_say_what_others_say() -> None:
    """Two engines in a process, few blocks: preemption, prefix hits, n > 1, and steps of every size, in turns."""
    common = tokens(99, 70)
    requests = [
        Request(
            f"r{number}",
            tuple((common if number % 3 == 0 else []) + tokens(number, 5 + 11 * number)),
            SamplingParams(
                n=2 if number % 4 == 0 else 1, temperature=number % 2, seed=number, max_tokens=40, logprobs=1
            ),
        )
        for number in range(8)
    ]
    engines = [make_engine(num_blocks=60, threads=threads, max_num_batched_tokens=64) for threads in (1, 2)]
    plain = engines[1].runner
    assert isinstance(plain, ModelRunner)
    engines[1].runner = ModelRunner(plain.model, plain.machine, replays=False)
    first, second = (serve(engine, requests) for engine in engines)
    assert first == second
    assert len(first) == 10
    for engine in engines:
        assert isinstance(engine.runner, ModelRunner)
        engine.runner.machine.device.close()


def test_inputs_hold_each_row_by_itself() -> None:
    inputs = replay.DecodeInputs(4, 4, BLOCK_SIZE)
    draw = Draw(GREEDY, (0,), [5, 6], 1)
    works = [Work(0, [5], 17, [3, 1], draw), Work(1, [8], 40, [0, 2, 9], draw)]
    for order in (works, works[::-1], works[1:], works):
        inputs.fill(tuple(order))
        forward = inputs.forward(len(order), Machine(None, Arena(), None, BLOCK_SIZE))  # type: ignore[arg-type]
        assert forward.ids_T.tolist() == [work.tokens[0] for work in order]
        assert forward.positions_T.tolist() == [work.start for work in order]
        assert forward.seq_lens_S.tolist() == [work.start + 1 for work in order]
        assert all(after - before == 1 for before, after in pairwise(forward.query_starts_S1.tolist()))
        for row, work in enumerate(order):
            table = forward.block_tables_SB[row, : len(work.block_table)]
            assert table.tolist() == work.block_table
            assert forward.slots_T[row] == table[work.start // BLOCK_SIZE] * BLOCK_SIZE + work.start % BLOCK_SIZE
        assert all(array.flags.c_contiguous for array in (forward.ids_T, forward.slots_T, forward.block_tables_SB))
        assert np.shares_memory(forward.block_tables_SB, inputs._tables_SB)
