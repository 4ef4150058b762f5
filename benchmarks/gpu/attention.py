"""Attention of an 8B model's steps: quire's own kernel, and FlashInfer beside it where it is installed.

    right     FlashInfer on our pages against NumPy: single tokens, prompts, both; recorded steps replayed with other
              lengths than they were recorded with; a whole model beside the same model through our own kernel
    speed     32 layers of a typical step of each kind (`engine/attention_choice.py` times the same at start)

Knows: both ways of computing. Does not know: how an engine is put together.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.gpu import models
from benchmarks.gpu.context import Context
from benchmarks.gpu.engines import serve
from benchmarks.gpu.ops_inputs import PagedCase, host, paged_case
from benchmarks.gpu.rows import told
from benchmarks.gpu.shapes import tiny_config
from quire.accelerator import installed_optional
from quire.attention_shape import KINDS, AttentionShape
from quire.engine.attention_choice import ALLOWED_DIFFERENCE, LEAD, fastest
from quire.kernels.reference import attention as reference_attention
from quire.ops.open_device import open_device

HEADS = ((32, 8, 128), (14, 2, 64), (8, 4, 128), (8, 1, 256))
STEPS: tuple[tuple[tuple[int, int], ...], ...] = (
    ((1, 1), (1, 16), (1, 17), (1, 700), (1, 5000)),
    ((5, 5), (33, 50), (130, 260)),
    ((1, 40), (2, 17), (64, 1000), (1, 3)),
)
LATER = (300, 17, 1, 5000, 16)  # keys of a step that is replayed: of as many rows as the first one, in no such order
ALLOWED = {"bfloat16": 2e-2, "float16": 4e-3}


def shape_of(heads: tuple[int, int, int], dtype: str, sizes: tuple[int, int, int, int]) -> AttentionShape:
    """`sizes` are layers, sequences and tokens of a step, keys of a sequence."""
    num_heads, num_kv_heads, head_dim = heads
    layers, seqs, tokens, keys = sizes
    return AttentionShape(
        layers, num_heads, num_kv_heads, head_dim, head_dim**-0.5, 16, dtype, seqs, tokens, keys
    )  # fmt: skip


def expected_of(case: PagedCase) -> np.ndarray:
    """What NumPy makes of it."""
    q = host(case.q_TQD)
    out = np.empty((len(q), q.shape[1] * q.shape[2]), np.float32)
    ints = case.starts_S1.astype(np.int32), case.lens_S, case.tables_SB
    reference_attention.attention(q, case.reference, 1, *ints, case.scale, out)
    return out


def is_right(planned: Any, case: PagedCase, dtype: str) -> bool:
    """Plan, attend, compare."""
    planned.fill(case.starts_S1.astype(np.int32), case.lens_S, case.tables_SB)
    out = torch.full_like(case.q_TQD, torch.nan).flatten(1)
    planned.attend(case.q_TQD, case.pages, 1, case.scale, out)
    return bool(np.allclose(host(out), expected_of(case), rtol=ALLOWED[dtype], atol=ALLOWED[dtype]))


def replays_right(device: Any, planned: Any, case: PagedCase, dtype: str) -> bool:
    """Recorded with some lengths, replayed with others over the same pages and queries."""
    out = torch.full_like(case.q_TQD, torch.nan).flatten(1)
    lens = np.sort(case.lens_S)[::-1].astype(np.int32)  # longest first: recorded with lengths that fit other rows
    tables = case.tables_SB[np.argsort(case.lens_S)[::-1]]
    starts = case.starts_S1.astype(np.int32)
    planned.fill(starts, lens, tables)

    def attend() -> None:
        planned.attend(case.q_TQD, case.pages, 1, case.scale, out)

    attend()
    recording = device.recorder().record(attend)
    planned.fill(starts, case.lens_S, case.tables_SB)
    recording.replay()
    return bool(np.allclose(host(out), expected_of(case), rtol=ALLOWED[dtype], atol=ALLOWED[dtype]))


def correctness(context: Context, heads: Sequence[tuple[int, int, int]] = HEADS, dtypes: Any = tuple(ALLOWED)) -> None:
    """Every ratio of heads, both types, every kind of step; of what FlashInfer has compiled, since it takes minutes."""
    wrong, count = list[str](), 0
    for each in heads:
        for dtype in dtypes:
            device: Any = open_device(context.device, 1, dtype)
            other, why = device.other_attention(shape_of(each, dtype, (1, 8, 512, 8192)), False)
            if other is None:
                context.rows.skip(f"FlashInfer of heads {each} in {dtype}", why)
                continue
            found = list(compared(device, other, each, dtype))
            count += len(found)
            wrong += [name for name, right in found if not right]
    if count:
        context.rows.check("FlashInfer on quire's pages against NumPy", len(wrong), count, "; ".join(wrong[:3]))


def compared(device: Any, other: Any, heads: tuple[int, int, int], dtype: str) -> Iterator[tuple[str, bool]]:
    """(what, whether it is right) of every kind of step, and of a replay."""
    for kind, seqs in (*zip(KINDS, STEPS, strict=True), ("replayed", tuple((1, keys) for keys in LATER))):
        case, name = paged_case(device.torch, seqs, heads, dtype, dtype), f"{heads} {dtype} {kind}"
        try:
            if kind == "replayed":
                yield name, replays_right(device, other.recorded(len(seqs)), case, dtype)
            else:
                yield name, is_right(other.step(kind), case, dtype)
        except device.attention_failures as problem:
            yield f"{name}: {told(problem)}", False


def whole_model(context: Context) -> None:
    """Scheduler, cache, recorded steps and all: first tokens as near as two orders of adding leave them."""
    config = tiny_config("qwen3", head_dim=64, num_key_value_heads=1)
    device: Any = open_device(context.device, 1, "bfloat16")
    other, why = device.other_attention(shape_of((4, 1, 64), "bfloat16", (1, 8, 64, 256)), False)
    if other is None:
        context.rows.skip("a model through FlashInfer", why)
        return
    asked = models.requests(config["vocab_size"], 12 if context.tiny else 40)
    ours, theirs = (
        serve(models.make(context, context.device, config, dtype="bfloat16", attention_backend=backend).engine, asked)
        for backend in ("triton", "flashinfer")
    )
    short = [each for each in ours if len(ours[each].tokens) != len(theirs[each].tokens)]
    off = max(
        models.first_difference(ours[each.id], theirs[each.id]) for each in asked if each.params.logprobs is not None
    )
    wrong = len(short) + int(not off <= models.ALLOWED_LOGPROB)
    why = f"first tokens' log probabilities differ by {off:.2g} at most, allowed {models.ALLOWED_LOGPROB}"
    context.rows.check("a model through FlashInfer, near quire's own", wrong, len(asked), why)


def speed(context: Context, with_other: bool) -> None:
    """Of an 8B model's attention."""
    sizes = (2, 4, 32, 64) if context.tiny else (32, 256, 8192, 8192)
    heads = (4, 2, 64) if context.tiny else (32, 8, 128)
    device: Any = open_device(context.device, 1, "bfloat16")
    shape = shape_of(heads, "bfloat16", sizes)
    other, name = device.other_attention(shape, False) if with_other else (None, "")
    if with_other and other is None:
        context.rows.skip("speed of FlashInfer", name)
    for kind in KINDS:
        if other is None:
            own_alone(context, device, shape, kind)
            continue
        trial = device.attention_trial(other, shape, kind, True)
        ours, theirs = (fastest(run, device.synchronize, time.perf_counter) for run in (trial.ours, trial.theirs))
        context.rows.add(f"attention of {kind}, quire's own", ours * 1e3, "ms a step")
        verdict = "chosen" if ours / theirs >= LEAD else "not chosen"
        why = f"{ours / theirs:.2f} times the speed of quire's own: {verdict}"
        context.rows.add(f"attention of {kind}, {name}", theirs * 1e3, "ms a step", why=why)
        off = trial.difference()
        why = f"{off:.2g} of the largest number away"
        context.rows.check(f"attention of {kind}, both the same", int(not off <= ALLOWED_DIFFERENCE), 1, why)


def own_alone(context: Context, device: Any, shape: AttentionShape, kind: str) -> None:
    """Where there is nothing to stand beside it."""
    from quire.kernels.vendor.trial import typical_step

    arrays, q_TQD, pages = typical_step(shape, kind, device.dtype, device.torch)
    there, out = device.put_all(arrays), torch.zeros_like(q_TQD).flatten(1)

    def run() -> None:
        for _ in range(shape.num_layers):
            device.kernels.attention(q_TQD, pages, 0, *there, shape.scale, out)

    seconds = fastest(run, device.synchronize, time.perf_counter)
    context.rows.add(f"attention of {kind}, quire's own", seconds * 1e3, "ms a step")


def run(context: Context) -> None:
    """The part."""
    missing = "flashinfer is not installed (pip install quire[flashinfer])" if not installed_optional() else ""
    missing = missing or ("" if context.is_gpu else "FlashInfer computes on a GPU alone")
    if missing:
        context.rows.skip("FlashInfer", missing)
    else:
        correctness(context)
        models.guarded(context.rows, "a model through FlashInfer", lambda: whole_model(context))
    speed(context, not missing)
