"""Plan + folder -> a running engine: the only place where all its parts meet.

Knows: which part is built from which. Does not know: who will use the engine.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from math import isinf
from pathlib import Path
from typing import Any

from quire import models
from quire.cache.blocks import BlockPool
from quire.cache.prefix import PrefixIndex
from quire.engine.attention_choice import choose_attention
from quire.engine.device_memory import fit_pool
from quire.engine.engine import Engine
from quire.engine.engine_receipt import engine_receipt
from quire.engine.examiner import Examiner
from quire.engine.grammars import Grammars, ThreadKeeper
from quire.engine.kept_weights import kept_weights
from quire.engine.rescue import Rescue
from quire.engine.weights_digest import WeightsDigest
from quire.model_spec import ModelSpec, read_model_spec
from quire.ops.device import Device
from quire.ops.open_device import make_arena, make_kv_cache, open_device
from quire.plan import Contract, Plan
from quire.receipt import Receipt
from quire.runner.canary import Canary
from quire.runner.inputs import Machine
from quire.runner.runner import ModelRunner
from quire.runner.weight_sums import WeightSums
from quire.scheduling.limits import ANY_ID, SchedulerLimits
from quire.scheduling.pace import ItlTarget
from quire.scheduling.scheduler import Scheduler
from quire.weights.checkpoint import Checkpoint

Progress = Callable[[int, int], None]
Keep = Callable[[Path, int, tuple[int, ...], int], Grammars]


@dataclass(frozen=True, slots=True)
class Built:
    """An engine, what was chosen for it at run time, and what a person should know of how it came up."""

    engine: Engine
    device: Device
    grammars: Grammars
    receipt: Receipt
    notes: tuple[str, ...] = ()

    @property
    def isa(self) -> str:
        """The instruction set its kernels use."""
        return self.device.isa

    @property
    def kernels(self) -> tuple[tuple[str, str, str], ...]:
        """(operation, implementation, why) for every operation."""
        return tuple(self.device.explain())


def build_engine(
    plan: Plan,
    folder: Path,
    progress: Progress | None = None,
    contract: Contract | None = None,
    keep: Keep = ThreadKeeper,
) -> Built:
    """Load the model in `folder` as `plan` says. Raises `StartError`s; `progress` gets (done, total) bytes.

    Grammars of constrained answers are kept by what `keep` makes of folder, vocabulary size, eos ids and rows a step.
    """
    spec = read_model_spec(folder)
    device = open_device(plan.device, plan.threads, plan.dtype, plan.batch_invariant)
    checkpoint = Checkpoint.open(folder)
    with WeightsDigest(plan, checkpoint) as weights:
        model, notes = _load(plan, spec, device, checkpoint, progress)
        arena = make_arena(device)
        model.reserve(arena, max(plan.max_num_batched_tokens, plan.max_num_seqs), plan.head_rows)
        device.reserve_draws(plan.max_num_seqs, spec.vocab_size)
        notes += choose_attention(plan, spec, device)
        make_runner = functools.partial(_runner, plan, model, device, arena)
        plan, said = (plan, ()) if device.memory is None else fit_pool(plan, device.memory, make_runner)
        receipt = engine_receipt(plan, model, device, weights.result())
    grammars = keep(folder, spec.vocab_size, spec.eos_ids, plan.max_num_seqs)
    runner = make_runner(plan.num_blocks, grammars)
    engine = Engine(
        build_scheduler(plan, spec.vocab_size),
        runner,
        contract,
        grammars,
        Rescue(lambda: Canary(model, runner.machine)),
    )
    return Built(engine, device, grammars, receipt, (*notes, *said, *weights.notes))


def _runner(
    plan: Plan, model: models.Model, device: Device, arena: Any, num_blocks: int, grammars: Grammars | None = None
) -> ModelRunner:
    spec = model.spec
    kv = make_kv_cache(
        device, spec.num_layers, num_blocks, plan.block_size, spec.num_kv_heads, spec.head_dim, plan.kv_dtype
    )
    machine = Machine(device, arena, kv, plan.block_size, plan.head_rows)
    return ModelRunner(model, machine, keeper=grammars, records=not plan.enforce_eager)


def _load(
    plan: Plan, spec: ModelSpec, device: Device, checkpoint: Checkpoint, progress: Progress | None
) -> tuple[models.Model, tuple[str, ...]]:
    """The model, from kept weights where the plan names a folder of them; and what there is to say about it."""
    load = functools.partial(models.load, spec, checkpoint, device, plan.precision, plan.head_precision)
    if not plan.quantization_cache:
        return load(progress, plan.max_model_len), ()
    with kept_weights(plan, spec, checkpoint) as kept:
        kept.open(plan.threads, progress)
        model = load(None if kept.is_whole else progress, plan.max_model_len, kept)
        kept.finish()
        return model, tuple(kept.notes)


def make_examiner(engine: Engine, plan: Plan, clock: Callable[[], float]) -> Examiner:
    """What looks at this engine from now on, which is taken for sound; nothing does where `plan` says so."""
    runner = engine.runner
    if isinf(plan.canary_floor_s) or not isinstance(runner, ModelRunner):
        return Examiner((), clock, plan.canary_floor_s)
    checks = Canary(runner.model, runner.machine), WeightSums(runner.model)
    return Examiner(checks, clock, plan.canary_floor_s, plan.canary_factor)


def build_scheduler(plan: Plan, vocab_size: int = ANY_ID) -> Scheduler:
    """The deciding half of an engine, for any runner that draws ids below `vocab_size`."""
    limits = SchedulerLimits(
        max_num_seqs=plan.max_num_seqs,
        max_num_batched_tokens=plan.max_num_batched_tokens,
        max_model_len=plan.max_model_len,
        block_size=plan.block_size,
        early_blocks=plan.device != "cpu",
        vocab_size=vocab_size,
    )
    prefix = PrefixIndex(plan.block_size) if plan.prefix_cache else None
    return Scheduler(
        limits, BlockPool(plan.num_blocks), prefix, plan.scheduling_policy, ItlTarget(plan.itl_floor_s, plan.itl_factor)
    )
