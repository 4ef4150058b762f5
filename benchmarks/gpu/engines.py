"""A running engine for a random model, planned and put together as one for a checkpoint is.

Knows: plans, the parts of an engine. Does not know: what is asked of it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.gpu.context import Context
from benchmarks.gpu.shapes import random_model, spec_of
from quire.engine.attention_choice import choose_attention
from quire.engine.build import build_scheduler
from quire.engine.device_memory import fit_pool
from quire.engine.engine import Engine
from quire.hardware import probe
from quire.ops.open_device import make_arena, make_kv_cache, open_device
from quire.plan import Plan, plan
from quire.request import Request
from quire.runner.inputs import Machine
from quire.runner.runner import ModelRunner
from quire.settings import EngineSettings
from quire.step import TokenLogprob


@dataclass(frozen=True, slots=True)
class Running:
    """An engine and what it was made of."""

    plan: Plan
    engine: Engine
    runner: ModelRunner
    device: Any
    num_parameters: int


def build(context: Context, config: dict[str, Any], made_on: Any = None, **options: Any) -> Running:
    """An engine on the context's device; `options` are those of `EngineSettings`. Random numbers are made on the torch
    device `made_on`, by default the engine's own: on the CPU they are the same for every device."""
    spec = spec_of(config)
    fixed = {"device": context.device, "prefix_cache": False, "itl_target": 0.0}
    planned = plan(EngineSettings(**{**fixed, **options}), probe(), spec)
    device: Any = open_device(planned.device, planned.threads, planned.dtype, planned.batch_invariant)
    where = device.torch if made_on is None else made_on
    model = random_model(spec, device, planned.precision, planned.head_precision, planned.max_model_len, where)
    arena = make_arena(device)
    model.reserve(arena, max(planned.max_num_batched_tokens, planned.max_num_seqs), planned.head_rows)
    device.reserve_draws(planned.max_num_seqs, spec.vocab_size)
    choose_attention(planned, spec, device)

    def make_runner(num_blocks: int) -> ModelRunner:
        sizes = (spec.num_layers, num_blocks, planned.block_size, spec.num_kv_heads, spec.head_dim, planned.kv_dtype)
        machine = Machine(device, arena, make_kv_cache(device, *sizes), planned.block_size, planned.head_rows)
        return ModelRunner(model, machine, records=not planned.enforce_eager)

    if device.memory is not None:
        planned, _ = fit_pool(planned, device.memory, make_runner)
    runner = make_runner(planned.num_blocks)
    engine = Engine(build_scheduler(planned, spec.vocab_size), runner)
    return Running(planned, engine, runner, device, spec.num_parameters)


@dataclass(slots=True)
class Answer:
    """What came of a request, and when."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    error: str | None = None


def serve(engine: Engine, requests: Sequence[Request]) -> dict[str, Answer]:
    """All at once, to the end. Raises RuntimeError where an answer ended in an error."""
    answers = {request.id: Answer() for request in requests}
    for request in requests:
        engine.add(request, 0.0)
    while engine.has_work:
        deltas = engine.advance(0.0)
        now = time.perf_counter()
        for delta in deltas or ():
            answer = answers[delta.request_id]
            answer.tokens += delta.tokens
            answer.logprobs += delta.logprobs
            answer.times += [now] * len(delta.tokens)
            if delta.error is not None:
                raise RuntimeError(f"request {delta.request_id} failed: {delta.error}")
    return answers
