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
from statistics import quantiles
from typing import Any

from quire.engine import build
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
    """Each case's step in milliseconds, on and off, and the share that is paid."""
    folder = Path(model) if model else BUNDLED
    spec = read_model_spec(folder)
    length = min(PROMPT, spec.context_length - 8)
    settings = EngineSettings(
        max_num_batched_tokens=PROMPT, max_model_len=length + 8, kv_cache_memory_bytes=2**31, prefix_cache=False
    )
    made = plan(settings, probe(), spec)
    built = build_engine(made, folder)
    engines = {"on": _engine(built, made, True), "off": _engine(built, made, False)}
    cases = {
        f"decode of {ROWS}": lambda engine: _decode(engine, rng, min(HELD, length // 2)),
        f"prompt of {length}": lambda engine: _prompt(engine, rng, length),
    }
    return {name: _compare(engines, run, seconds / len(cases)) for name, run in cases.items()}


def _engine(built: Built, made: Plan, looks: bool) -> Callable[[], Any]:
    """An engine over the same model, as a factory: what is patched for `off` is patched back for `on`."""
    forward, inputs = runner.build_forward, replay.DecodeInputs.forward
    made_runner = built.engine.runner
    limit = made_runner.model.spec.vocab_size if looks else ANY_ID  # type: ignore[attr-defined]
    engine = build.Engine(
        build.build_scheduler(made, limit), runner.ModelRunner(made_runner.model, made_runner.machine)
    )  # type: ignore[attr-defined]
    if looks:
        engine.examiner = make_examiner(engine, made, time.monotonic)

    def blind(whole: Forward) -> Forward:
        return whole if looks else replace(whole, flaws_T1=None)

    def use() -> Any:
        runner.build_forward = lambda step, machine: blind(forward(step, machine))
        replay.DecodeInputs.forward = lambda self, *args: blind(inputs(self, *args))  # type: ignore[method-assign]
        return engine

    return use


def _compare(engines: dict[str, Callable[[], Any]], run: Callable[[Any], list[float]], seconds: float) -> Case:
    """Both in turns. What a machine does besides only makes steps longer, so the quicker quarter is compared."""
    end, num_turns = time.perf_counter() + seconds, 0
    steps: dict[str, list[float]] = {"on": [], "off": []}
    while time.perf_counter() < end or num_turns < 4:
        for name in ("on", "off") if num_turns % 2 else ("off", "on"):
            steps[name] += run(engines[name]())
        num_turns += 1
    on_s, off_s = (quantiles(steps[name], n=4)[0] for name in ("on", "off"))
    return {
        "on_ms": round(1000 * on_s, 4),
        "off_ms": round(1000 * off_s, 4),
        "steps": len(steps["on"]),
        "overhead": round(on_s / off_s - 1, 5),
    }


def _decode(engine: Any, rng: random.Random, held: int) -> list[float]:
    """Seconds of steps in which all rows draw."""
    vocab = engine.runner.model.spec.vocab_size
    for number in range(ROWS):
        params = SamplingParams(temperature=0.0, seed=0, max_tokens=100, ignore_eos=True)
        engine.add(Request(str(number), tuple(rng.randrange(vocab) for _ in range(held)), params), 0.0)
    found = []
    while engine.has_work:
        found.append(_timed(engine))
    return found[-80:-4]


def _prompt(engine: Any, rng: random.Random, length: int) -> list[float]:
    """Seconds of one step that reads a prompt."""
    vocab = engine.runner.model.spec.vocab_size
    params = SamplingParams(temperature=0.0, seed=0, max_tokens=1, ignore_eos=True)
    engine.add(Request("p", tuple(rng.randrange(vocab) for _ in range(length)), params), 0.0)
    found = 0.0
    while engine.has_work:
        found += _timed(engine)
    return [found]


def _timed(engine: Any) -> float:
    """One turn of the loop, as it is done while others wait."""
    begin = time.perf_counter()
    engine.advance(0.0)
    engine.examine(time.monotonic())
    return time.perf_counter() - begin
