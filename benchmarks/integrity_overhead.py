"""What looking costs: the same steps with and without it, in turns, in one process.

    on     keys and values are looked at as they are stored, tokens as they are settled, the engine at itself when due
    off    none of it: no flaws are asked of the store, any id will do, no examiner

Decoding of 32 sequences on 200 tokens each, and prompts of 2048 tokens. What has no switch (a guard among the scores of
attention) is in both; `docs/decisions/022-integrity.md` has its figure.

Knows: engines. Does not know: servers.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from quire.engine.build import Built, build_engine, make_examiner
from quire.hardware import probe
from quire.layers.forward import Forward
from quire.llm import BUNDLED
from quire.model_spec import read_model_spec
from quire.plan import Plan, plan
from quire.request import Request, SamplingParams
from quire.runner import replay, runner
from quire.scheduling.limits import ANY_ID
from quire.settings import EngineSettings

ROWS, HELD, PROMPT = 32, 200, 2048
Case = dict[str, float]


def measure(model: str | None, seconds: float, rng: random.Random) -> dict[str, Case]:
    """Each case's step in milliseconds, on and off, the share that is paid, and how sure that is (one sigma)."""
    folder = Path(model) if model else BUNDLED
    spec = read_model_spec(folder)
    length = min(PROMPT, spec.context_length - 8)
    settings = EngineSettings(
        max_num_batched_tokens=PROMPT, max_model_len=length + 8, kv_cache_memory_bytes=2**31, prefix_cache=False
    )
    made = plan(settings, probe(), spec)
    built = build_engine(made, folder)
    switch = Switch(built, made)
    cases: dict[str, Callable[[Switch, int], list[tuple[float, float]]]] = {
        f"decode of {ROWS}": lambda switch, first: _decode(switch, first, rng, min(HELD, length // 2)),
        f"prompt of {length}": lambda switch, first: _prompt(switch, first, rng, length),
    }
    return {name: _compare(switch, run, seconds / len(cases)) for name, run in cases.items()}


class Switch:
    """One engine, whose looking can be turned on and off: two engines would differ by where their memory lies."""

    def __init__(self, built: Built, made: Plan) -> None:
        self.engine: Any = built.engine
        self.engine.rescue = None
        self._examiner = make_examiner(built.engine, made, time.monotonic)
        self._limits = built.engine.scheduler.limits
        self._forward, self._inputs = runner.build_forward, replay.DecodeInputs.forward
        self._recorded: dict[bool, Any] = {True: {}, False: {}}

    def turn(self, on: bool) -> Any:
        """The engine, which looks or does not; each has recordings of its own, of the same memory."""

        def seen(whole: Forward) -> Forward:
            return whole if on else replace(whole, flaws_T1=None)

        runner.build_forward = lambda step, machine: seen(self._forward(step, machine))
        replay.DecodeInputs.forward = lambda inputs, *args: seen(self._inputs(inputs, *args))  # type: ignore[method-assign]
        self.engine.runner._replay._recorded = self._recorded[on]
        self.engine.examiner = self._examiner if on else None
        self.engine.scheduler.limits = self._limits if on else replace(self._limits, vocab_size=ANY_ID)
        return self.engine


def _compare(switch: Switch, run: Callable[[Switch, int], list[tuple[float, float]]], seconds: float) -> Case:
    """Steps with and without, one after the other: what else the machine does harms both of a pair alike."""
    end, pairs = time.perf_counter() + seconds, []
    while time.perf_counter() < end or len(pairs) < 8:
        pairs += run(switch, len(pairs) % 2)
    shares = sorted(on_s / off_s - 1 for on_s, off_s in pairs)
    spread = (shares[3 * len(shares) // 4] - shares[len(shares) // 4]) / 1.35  # of a normal law
    return {
        "on_ms": round(1000 * median([on_s for on_s, _ in pairs]), 4),
        "off_ms": round(1000 * median([off_s for _, off_s in pairs]), 4),
        "pairs": len(pairs),
        "overhead": round(median(shares), 5),
        "uncertainty": round(1.25 * spread / len(shares) ** 0.5, 5),
    }


def _decode(switch: Switch, first: int, rng: random.Random, held: int) -> list[tuple[float, float]]:
    """Seconds (with, without) of steps in which all rows draw."""
    engine = switch.turn(True)
    vocab = engine.runner.model.spec.vocab_size
    for number in range(ROWS):
        params = SamplingParams(temperature=0.0, seed=0, max_tokens=200, ignore_eos=True)
        engine.add(Request(str(number), tuple(rng.randrange(vocab) for _ in range(held)), params), 0.0)
    found: dict[bool, list[float]] = {True: [], False: []}
    number = first
    while engine.has_work:
        on = number % 4 in (0, 3)  # with, without, without, with
        found[on].append(_timed(switch.turn(on)))
        number += 1
    return list(zip(found[True][-80:-4], found[False][-80:-4], strict=False))


def _prompt(switch: Switch, first: int, rng: random.Random, length: int) -> list[tuple[float, float]]:
    """Seconds (with, without) of the steps that read a prompt."""
    vocab = switch.engine.runner.model.spec.vocab_size
    params = SamplingParams(temperature=0.0, seed=0, max_tokens=1, ignore_eos=True)
    prompt = tuple(rng.randrange(vocab) for _ in range(length))
    found = {True: 0.0, False: 0.0}
    for on in (True, False) if first else (False, True):
        engine = switch.turn(on)
        engine.add(Request("p", prompt, params), 0.0)
        while engine.has_work:
            found[on] += _timed(engine)
    return [(found[True], found[False])]


def _timed(engine: Any) -> float:
    """One turn of the loop, as it is done while others wait."""
    begin = time.perf_counter()
    engine.advance(0.0)
    engine.examine(time.monotonic())
    return time.perf_counter() - begin
