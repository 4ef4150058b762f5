"""A step that makes or reads something infinite or NaN fails the works it belongs to, in that step, and no others.

Knows: the runner on the bundled model. Does not know: what the engine does with a failed work.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from quire.engine.build import build_engine
from quire.hardware import probe
from quire.llm import BUNDLED
from quire.model_spec import read_model_spec
from quire.models import Model
from quire.ops.arena import Arena
from quire.ops.device import Device
from quire.ops.kv_cache import KVCache
from quire.ops.rope_store import rope_store
from quire.plan import plan
from quire.request import SamplingParams
from quire.runner.inputs import Machine
from quire.runner.runner import ModelRunner
from quire.settings import EngineSettings
from quire.step import KV_NOT_FINITE, LOGITS_NOT_FINITE, Draw, Step, Work, WorkResult

GREEDY = SamplingParams(temperature=0.0, seed=0)
FORMS: dict[str, dict[str, Any]] = {
    "bfloat16": {"dtype": "bfloat16"},
    "float32": {"dtype": "float32"},
    "int8": {"quantization": "int8", "kv_cache_dtype": "int8"},
    "int4": {"quantization": "int4", "quantization_group_size": 64},
}


@pytest.fixture(scope="module", params=list(FORMS))
def built(request: pytest.FixtureRequest) -> Iterator[ModelRunner]:
    options = FORMS[request.param]
    settings = EngineSettings(kv_cache_memory_bytes=2**24, threads=2, **options)
    runner = build_engine(plan(settings, probe(), read_model_spec(BUNDLED)), BUNDLED).engine.runner
    assert isinstance(runner, ModelRunner)
    yield runner
    runner.machine.device.close()


@dataclass(frozen=True)
class Poisoned:
    """An embedding after which chosen rows of hidden states hold something wrong."""

    embedding: Any
    rows: dict[int, float]

    def __call__(self, device: Device, ids_T: np.ndarray, out_TH: np.ndarray) -> None:
        self.embedding(device, ids_T, out_TH)
        for row, wrong in self.rows.items():
            out_TH[row, 5] = wrong


def runner_of(built: ModelRunner, rows: dict[int, float] | None = None, replays: bool = True) -> ModelRunner:
    """A runner with pages of its own; hidden states of `rows` are wrong from the start."""
    model: Model = built.model
    if rows is not None:
        model = replace(model, embedding=Poisoned(model.embedding, rows))  # type: ignore[arg-type]
    spec, kv = model.spec, built.machine.kv
    pages = KVCache(spec.num_layers, 20, 16, spec.num_kv_heads, spec.head_dim, kv.dtype)
    return ModelRunner(model, Machine(built.machine.device, Arena(), pages, 16), replays)


def prompt(number: int, length: int, block: int, draws: bool = True) -> Work:
    tokens = [(7 * number + 3 * place) % 400 for place in range(length)]
    blocks = list(range(block, block + 3))
    return Work(number, tokens, 0, blocks, Draw(GREEDY, (0,), tokens, length) if draws else None)


def errors(results: tuple[WorkResult, ...]) -> list[str | None]:
    return [result.error for result in results]


def spoil(runner: ModelRunner, layer: int, slot: int, wrong: float) -> None:
    """Put something wrong into all heads of a slot, as a fault of the memory would."""
    kv = runner.machine.kv
    half, dim = kv.head_dim // 2, kv.head_dim
    ones, zero = np.ones((1, half), np.float32), np.zeros(1, np.int32)
    qkv = np.full((1, (1 + 2 * kv.num_kv_heads) * dim), wrong, np.float32)
    q_out = np.empty((1, 1, dim), np.float32)
    slots = np.array([slot], np.int32)
    rope_store(runner.machine.device, qkv, zero, slots, ones, ones, kv, layer, None, None, 0.0, q_out)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_prompt_whose_rows_nobody_reads_is_found(built: ModelRunner, wrong: float) -> None:
    """Row 9 of the second prompt, which draws nothing yet: its pages must not be offered to others."""
    works = (prompt(0, 20, 0), prompt(1, 30, 3, draws=False), prompt(2, 12, 6))
    clean = runner_of(built).run(Step(1, works)).works
    harmed = runner_of(built, {29: wrong}).run(Step(1, works)).works
    assert errors(harmed) == [None, KV_NOT_FINITE, None]
    assert (harmed[0], harmed[2]) == (clean[0], clean[2])


@pytest.mark.parametrize("replays", [True, False])
def test_a_row_that_draws_is_found_and_the_next_step_is_clean(built: ModelRunner, replays: bool) -> None:
    rows: dict[int, float] = {}
    runner, clean = runner_of(built, rows, replays), runner_of(built)
    prompts = tuple(prompt(number, 10, 3 * number) for number in range(3))
    for each in (runner, clean):
        assert errors(each.run(Step(1, prompts)).works) == [None] * 3
    works = tuple(
        Work(number, [9], 10, each.block_table, Draw(GREEDY, (0,), [*each.tokens, 9], 10))
        for number, each in enumerate(prompts)
    )
    wanted = clean.run(Step(2, works)).works
    if not replays:  # what was recorded runs without the model's Python
        rows[1] = np.nan
        assert errors(runner.run(Step(2, works)).works) == [None, KV_NOT_FINITE, None]
        rows.clear()
        assert runner.run(Step(3, works)).works == wanted
        return
    assert runner.run(Step(2, works)).works == wanted
    for layer in (0, built.model.spec.num_layers - 1):
        spoil(runner, layer, 3 * 16 + 4, np.nan)  # in a page that the second sequence reads
        found = runner.run(Step(3, works)).works
        assert found[1].error in (KV_NOT_FINITE, LOGITS_NOT_FINITE)
        assert (found[0], found[2]) == (wanted[0], wanted[2])
        assert runner.run(Step(4, prompts)).works[1].error is None  # written anew, read anew
        assert runner.run(Step(5, works)).works == wanted


def test_prompt_logprobs_of_a_flawed_prompt_are_not_told(built: ModelRunner) -> None:
    tokens = [(3 * place) % 400 for place in range(30)]
    work = Work(0, tokens, 0, [0, 1, 2], Draw(GREEDY, (0,), tokens, 30), 1, tokens[1:])
    found = runner_of(built, {4: np.inf}).run(Step(1, (work, prompt(1, 8, 3)))).works
    assert errors(found) == [KV_NOT_FINITE, None]
    assert found[0].prompt_logprobs == ()
