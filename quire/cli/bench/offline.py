"""`quire bench offline`: the engine alone, on random ids, greedy, end of text ignored.

Knows: how the work is drawn and what each figure means. Does not know: text, HTTP, or what the engine does inside.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from statistics import median
from typing import Any

from quire.cli.bench.figures import medians, significant
from quire.cli.prepare import Prepared
from quire.engine.build import build_engine
from quire.engine.engine import Engine
from quire.errors import ContextLengthExceeded, GenerationFailed, InvalidSetting
from quire.request import Request, SamplingParams
from quire.step import Delta

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Work:
    """`num_requests` at once; each has `input_tokens` of its own behind `shared_prefix_tokens` in common."""

    num_requests: int = 8
    input_tokens: int = 128
    output_tokens: int = 64
    shared_prefix_tokens: int = 0
    repeat: int = 3
    warmup: int = 1
    seed: int = 1

    def check(self) -> None:
        """Refuse work that measures nothing."""
        lows = {"requests": self.num_requests, "input-tokens": self.input_tokens, "output-tokens": self.output_tokens}
        for name, value in (lows | {"repeat": self.repeat}).items():
            if value < 1:
                raise InvalidSetting(f"--{name} is too small", got=value, allowed="1 or more")
        for name, value in {"shared-prefix-tokens": self.shared_prefix_tokens, "warmup": self.warmup}.items():
            if value < 0:
                raise InvalidSetting(f"--{name} is too small", got=value, allowed="0 or more")


@dataclass(slots=True)
class Times:
    """When one request's tokens came, in seconds since all were submitted."""

    first_s: float = 0.0
    last_s: float = 0.0
    num_tokens: int = 0

    def add(self, num_tokens: int, now_s: float) -> None:
        """`num_tokens` more have come."""
        if self.num_tokens == 0:
            self.first_s = now_s
        self.last_s = now_s
        self.num_tokens += num_tokens


@dataclass(slots=True)
class Run:
    """One repeat as it was measured."""

    requests: dict[str, Times] = field(default_factory=dict)
    num_cached: int = 0
    num_preempted: int = 0


def measure(prepared: Prepared, work: Work, tell: Tell) -> dict[str, Any]:
    """Load the model, run `work` warmup + repeat times, and report medians as one JSON object."""
    work.check()
    longest = work.shared_prefix_tokens + work.input_tokens + work.output_tokens
    if longest > prepared.plan.max_model_len:
        raise ContextLengthExceeded(
            "a request of this work is longer than the context",
            got=f"{longest} tokens",
            allowed=f"at most {prepared.plan.max_model_len}",
        )
    built = build_engine(prepared.plan, prepared.folder)
    rng = Random(work.seed)
    runs = []
    try:
        for number in range(-work.warmup, work.repeat):
            run = run_once(built.engine, draw(work, rng, prepared.spec.vocab_size))
            tell(f"{'warm-up' if number < 0 else f'run {number + 1}'}: {figures(work, run)['seconds']} s")
            if number >= 0:
                runs.append(run)
    finally:
        built.device.close()
    return _report(prepared, work, runs, built.isa)


def draw(work: Work, rng: Random, vocab_size: int) -> list[Request]:
    """New ids for every request (and for the prefix in common): nothing of an earlier run can be reused."""
    shared = tuple(rng.randrange(vocab_size) for _ in range(work.shared_prefix_tokens))
    params = SamplingParams(temperature=0.0, seed=0, max_tokens=work.output_tokens, ignore_eos=True)
    return [
        Request(str(number), shared + tuple(rng.randrange(vocab_size) for _ in range(work.input_tokens)), params)
        for number in range(work.num_requests)
    ]


def run_once(engine: Engine, requests: Sequence[Request]) -> Run:
    """Submit everything at once with an empty prefix cache, and step until the last token."""
    engine.scheduler.reset_prefix_cache()
    run = Run({request.id: Times() for request in requests})
    start = time.perf_counter()
    for request in requests:
        engine.add(request, start)
    while engine.has_work:
        report = engine.step(time.perf_counter())
        now_s = time.perf_counter() - start
        if report is not None:
            run.num_preempted += report.stats.num_preempted
            for delta in report.deltas:
                _note(run, delta, now_s)
    return run


def figures(work: Work, run: Run) -> dict[str, float]:
    """The figures of one run.

    seconds: from submit to the last token. output_tokens_per_s, prompt_tokens_per_s: all tokens of the kind over those
    seconds, a cached prefix included. ttft_s: from submit to a request's first token, the median over requests.
    decode_tokens_per_s: tokens after each request's first, over the time in which some request was past its first
    token; 0 where nobody drew a second one. Only this one compares with llama.cpp's tg.
    """
    times = list(run.requests.values())
    seconds = max(each.last_s for each in times)
    num_output = sum(each.num_tokens for each in times)
    num_prompt = work.num_requests * (work.shared_prefix_tokens + work.input_tokens)
    decoding_s = covered([(each.first_s, each.last_s) for each in times])
    raw = {
        "output_tokens_per_s": num_output / seconds,
        "prompt_tokens_per_s": num_prompt / seconds,
        "decode_tokens_per_s": (num_output - len(times)) / decoding_s if decoding_s else 0.0,
        "ttft_s": median(each.first_s for each in times),
        "seconds": seconds,
    }
    return {name: significant(value) for name, value in raw.items()}


def covered(spans: Sequence[tuple[float, float]]) -> float:
    """Length of the union of `spans` (begin, end)."""
    total, reach = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reach))
        reach = max(reach, end)
    return total


def _note(run: Run, delta: Delta, now_s: float) -> None:
    if delta.error is not None:
        raise GenerationFailed("a request of the benchmark failed", got=delta.error)
    if delta.tokens:
        times = run.requests[delta.request_id]
        run.num_cached += delta.num_cached if times.num_tokens == 0 else 0  # every delta of a request tells it again
        times.add(len(delta.tokens), now_s)


def _report(prepared: Prepared, work: Work, runs: list[Run], isa: str) -> dict[str, Any]:
    each = [figures(work, run) for run in runs]
    chosen = prepared.plan
    return {
        **medians(each),
        "model": prepared.name,
        "dtype": chosen.dtype,
        "weights": str(chosen.precision),
        "head": str(chosen.head_precision),
        "weight_bytes_per_token": chosen.weights.per_token,
        "isa": isa,
        "threads": chosen.threads,
        "cpu": prepared.hardware.cpu_model,
        "requests": work.num_requests,
        "input_tokens": work.input_tokens,
        "output_tokens": work.output_tokens,
        "shared_prefix_tokens": work.shared_prefix_tokens,
        "prefix_cache": chosen.prefix_cache,
        "cached_prompt_tokens": median(run.num_cached for run in runs),
        "preempted": max(run.num_preempted for run in runs),
        "repeat": work.repeat,
        "warmup": work.warmup,
        "runs": each,
    }
