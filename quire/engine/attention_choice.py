"""FlashInfer where it is installed and faster: both ways of attention timed at start on steps as large as the plan's.

    kind of step     timed
    single tokens    all rows the plan allows, recorded and replayed where steps are; plans are then made beside
    prompts          one that fills a step, or several; with the plan of the step
    mixed            half of the rows single tokens, a prompt in what is left; with the plan of the step

Each kind is chosen alone. What FlashInfer computes must also agree with what our own kernels do, within what bfloat16
rounds: a build that computes something else is never taken.

Knows: plans, a device that can compute attention in two ways. Does not know: how either computes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

from quire.attention_shape import KINDS, AttentionShape
from quire.errors import InvalidSetting
from quire.model_spec import ModelSpec
from quire.ops.device import Device
from quire.plan import Plan
from quire.runner.graphs import padded

LEAD = 1.05  # a smaller lead is chance, and our own kernels need no plan
ALLOWED_DIFFERENCE = 0.03  # of the largest number: weights of both are rounded to 8 bits of mantissa, sums are not
TIMES = 3
Clock = Callable[[], float]


def shape_of(plan: Plan, spec: ModelSpec) -> AttentionShape:
    """What may be known of this model's attention; rows are those of the largest recorded step."""
    rows = min(plan.max_num_seqs, plan.head_rows, plan.max_num_batched_tokens)
    return AttentionShape(
        num_layers=spec.num_layers,
        num_heads=spec.num_heads,
        num_kv_heads=spec.num_kv_heads,
        head_dim=spec.head_dim,
        scale=spec.head_dim**-0.5,
        block_size=plan.block_size,
        kv_dtype=plan.kv_dtype,
        most_seqs=padded(rows, 1, plan.head_rows)[0],
        most_tokens=plan.max_num_batched_tokens,
        most_keys=plan.max_model_len,
    )


def choose_attention(plan: Plan, spec: ModelSpec, device: Device, clock: Clock = time.perf_counter) -> tuple[str, ...]:
    """Tell the device which steps go through FlashInfer; and what there is to say about it.

    Raises `InvalidSetting` where FlashInfer was asked for and cannot be had: it is never silently replaced.
    """
    if plan.attention_backend == "quire":
        return ()
    insists = plan.attention_backend == "flashinfer"
    there, shape = cast(Any, device), shape_of(plan, spec)
    other, name = there.other_attention(shape, insists)
    if other is None:
        return _refused(name, insists)
    kinds, others = dict[str, str](), dict[str, str]()
    for kind in KINDS:
        problem, ratio = _tried(there, other, shape, kind, not plan.enforce_eager, clock)
        if insists and problem:
            return _refused(problem, insists)
        why = problem or f"{ratio:.2f} times the speed of quire's own in a typical step"
        (kinds if not problem and (insists or ratio >= LEAD) else others)[kind] = why
    there.use_attention(other, kinds, others)
    return tuple(
        f"attention of {kind}: {name if kind in kinds else 'triton'} ({name} has {why})"
        if kind in kinds or "times" in why
        else f"attention of {kind}: triton ({name}: {why})"
        for kind, why in sorted({**kinds, **others}.items(), key=lambda item: KINDS.index(item[0]))
    )


def _refused(why: str, insists: bool) -> tuple[str, ...]:
    if not insists:
        return (f"FlashInfer is installed and not used: {why}; --attention-backend flashinfer insists",)
    raise InvalidSetting(
        "--attention-backend flashinfer cannot be had here",
        got=why,
        allowed="auto, triton",
        hint="auto takes it for what it can do and where it is faster.",
        param="attention_backend",
    )


def _tried(device: Any, other: Any, shape: AttentionShape, kind: str, records: bool, clock: Clock) -> tuple[str, float]:
    """(what is wrong, empty if nothing is; how many times our own speed it has)."""
    try:
        trial = device.attention_trial(other, shape, kind, records)
        ours, theirs = (fastest(run, device.synchronize, clock) for run in (trial.ours, trial.theirs))
        difference = trial.difference()
    except device.attention_failures as problem:
        said = str(problem).strip().splitlines()
        return f"it failed: {type(problem).__name__}{': ' + said[0] if said else ''}", 0.0
    if not difference <= ALLOWED_DIFFERENCE:
        return f"it computes something else, {difference:.2g} of the largest number away", 0.0
    return "", ours / max(theirs, 1e-9)


def fastest(run: Callable[[], None], wait: Callable[[], None], clock: Clock) -> float:
    """The shortest of some runs, after one that does not count."""
    taken = []
    for _ in range(1 + TIMES):
        wait()
        begin = clock()
        run()
        wait()
        taken.append(clock() - begin)
    return min(taken[1:])
