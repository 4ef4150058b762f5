"""One stream, and how busy the device is.

    single stream    bytes that a token must read (weights once, keys and values of its context) / time a token takes,
                     held against the memory roof measured a moment before
    idle share       1 - time in which any kernel or copy runs (of a profile) / time of as many steps without profiler

Knows: engines, the roof, torch's profiler. Does not know: how a step is launched.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.gpu import roof
from benchmarks.gpu.context import Context
from benchmarks.gpu.engines import Running, build, serve
from benchmarks.gpu.models import guarded
from benchmarks.gpu.shapes import main_config
from quire.request import Request, SamplingParams

SHARE_OF_ROOF, IDLE_ALONE, IDLE_AT_64 = 0.85, 0.03, 0.01
PRECISIONS: dict[str, dict[str, Any]] = {
    "bf16": {},
    "fp8": {"quantization": "fp8"},
    "int8": {"quantization": "int8", "head_quantization": "int8"},
    "int4": {"quantization": "int4", "head_quantization": "int8"},
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """Tokens of a prompt, tokens that are timed, tokens before them, steps that are profiled."""

    prompt: int
    timed: int
    warm: int
    profiled: int


def sizes_of(context: Context) -> Sizes:
    """A context of some hundred tokens, as a chat has it."""
    return Sizes(8, 8, 4, 4) if context.tiny else Sizes(128, 384, 64, 48)


def ask(number: int, length: int, tokens: int, vocab_size: int, temperature: float = 0.0) -> Request:
    """A prompt of random ids, and exactly so many tokens."""
    ids = np.random.default_rng(number).integers(3, vocab_size, length).tolist()
    params = SamplingParams(temperature=temperature, seed=number, max_tokens=tokens, ignore_eos=True)
    return Request(f"r{number}", tuple(ids), params)


def engine_of(context: Context, options: dict[str, Any], num_seqs: int) -> Running:
    """For so many streams of some hundred tokens."""
    longest = 64 if context.tiny else 1024
    fixed = {"max_num_seqs": num_seqs, "max_model_len": longest, "max_num_batched_tokens": max(num_seqs * 8, 64)}
    small = {"kv_cache_memory_bytes": 32 * 2**20, "threads": 2} if not context.is_gpu else {}
    return build(context, main_config(context.tiny), **{**fixed, **small, **options})


def bytes_a_token(running: Running, num_keys: float) -> float:
    """What one token of one stream must read."""
    plan = running.plan
    return plan.weights.per_token + plan.kv_bytes / plan.kv_tokens * num_keys


def stream(context: Context, running: Running) -> tuple[float, float]:
    """(seconds a token, bytes a token) of one stream, after a first answer that compiles and captures."""
    sizes, vocab_size = sizes_of(context), running.runner.model.spec.vocab_size
    num_tokens = sizes.warm + sizes.timed
    serve(running.engine, [ask(1, sizes.prompt, num_tokens, vocab_size)])
    times = serve(running.engine, [ask(2, sizes.prompt, num_tokens, vocab_size)])["r2"].times
    seconds = (times[-1] - times[sizes.warm - 1]) / sizes.timed
    return seconds, bytes_a_token(running, sizes.prompt + sizes.warm + sizes.timed / 2)


def streams(context: Context) -> None:
    """Every precision; bfloat16 has the target."""
    rate = roof.read_rate(context)
    context.rows.add("memory read, in this minute", rate / 1e9, "GB/s")
    for name, options in PRECISIONS.items():

        def measure(name: str = name, options: dict[str, Any] = options) -> None:
            seconds, num_bytes = stream(context, engine_of(context, options, 1))
            context.rows.add(f"{name}, one stream", 1 / seconds, "tokens/s")
            target = SHARE_OF_ROOF if name == "bf16" else None
            context.rows.add(f"{name}, share of the memory roof", num_bytes / seconds / rate, "", target)

        guarded(context.rows, f"{name}, one stream", measure)
        release(context)


def release(context: Context) -> None:
    """Give an engine's memory back before the next one plans its own."""
    if context.is_gpu:
        import gc

        import torch

        gc.collect()
        torch.cuda.empty_cache()


def idle(context: Context) -> None:
    """At batch 1 and 64."""
    for num_seqs, target in ((1, IDLE_ALONE), (4 if context.tiny else 64, IDLE_AT_64)):

        def measure(num_seqs: int = num_seqs, target: float = target) -> None:
            running = engine_of(context, {}, num_seqs)
            share = idle_share(context, running, num_seqs)
            name = f"device idle, batch {num_seqs}"
            if share is None:
                context.rows.skip(name, "torch's profiler saw no kernel: is CUPTI there?")
            else:
                context.rows.add(name, share, "", target, most=True, why=launched(running))

        guarded(context.rows, f"device idle, batch {num_seqs}", measure)
        release(context)


def launched(running: Running) -> str:
    """How its decode steps were launched."""
    graphs = running.runner.ahead.graphs if running.runner.ahead is not None else None
    if graphs is None:
        return "every kernel launched from Python"
    said = f"; recording given up: {graphs.problem}" if graphs.problem else ""
    return f"{graphs.num_replayed} steps replayed from {graphs.num_recorded} recordings{said}"


def idle_share(context: Context, running: Running, num_seqs: int) -> float | None:
    """Of steady steps of `num_seqs` streams; None where the profiler sees nothing."""
    sizes, vocab_size = sizes_of(context), running.runner.model.spec.vocab_size
    engine = running.engine
    num_steps = sizes.warm + 2 * sizes.timed + sizes.profiled
    for number in range(num_seqs):
        engine.add(ask(number, sizes.prompt, num_steps + num_seqs, vocab_size), 0.0)
    for _ in range(sizes.warm + num_seqs):
        engine.advance(0.0)
    context.synchronize()
    begin = time.perf_counter()
    for _ in range(sizes.timed):
        engine.advance(0.0)
    seconds = (time.perf_counter() - begin) / sizes.timed
    busy = busy_seconds(profiled(context, engine, sizes.profiled)) / sizes.profiled
    for number in range(num_seqs):
        engine.abort(f"r{number}")
    return 1 - min(busy / seconds, 1.0) if busy else None


def profiled(context: Context, engine: Any, num_steps: int) -> list[tuple[float, float]]:
    """(begin, end) in seconds of all that ran on the device in so many steps (on a CPU, of torch's operations)."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    activity = ProfilerActivity.CUDA if context.is_gpu else ProfilerActivity.CPU
    wanted = DeviceType.CUDA if context.is_gpu else DeviceType.CPU
    with profile(activities=[activity]) as told:
        for _ in range(num_steps):
            engine.advance(0.0)
        context.synchronize()
    events = [event for event in told.events() if event.device_type == wanted]
    return [(event.time_range.start / 1e6, event.time_range.end / 1e6) for event in events]


def busy_seconds(intervals: Iterable[tuple[float, float]]) -> float:
    """Length of their union."""
    total, until = 0.0, -np.inf
    for begin, end in sorted(intervals):
        total += max(end - max(begin, until), 0.0)
        until = max(until, end)
    return float(total)


def run(context: Context) -> None:
    """The part."""
    streams(context)
    idle(context)
