"""Knows: how each policy is run, on this machine with a model or on a modelled device. Does not know: the table.

All policies are run in one process, with one model, the same kernels and the same KV memory, in turn; what they drew
is compared token for token.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from quire.cli.bench.savings_load import Load, asks_of, blank_prompts, random_prompts
from quire.cli.bench.savings_report import Served, report
from quire.cli.prepare import Prepared, describe, prepare
from quire.cli.resolve import resolve
from quire.engine.build import build_engine
from quire.engine.rescue import Runner
from quire.errors import GenerationFailed, InvalidSetting
from quire.model_spec import read_model_spec
from quire.settings import EngineSettings
from quire.sim.asked import device_of
from quire.sim.named import DEVICES
from quire.sim.savings.asks import Ask
from quire.sim.savings.machine import Machine, Modelled
from quire.sim.savings.policies import Policy, Setting, policies_named, setting_of
from quire.sim.savings.serving import Serving
from quire.step import Step, StepResult

Tell = Callable[[str], None]
USUAL_MODEL_LEN = 2048  # what contiguous reservations were made of when they were usual
MODELLED_BLOCKS = 8192
WARM_REQUESTS, WARM_TOKENS = 2, 4
STEPS_PER_WORD = 20_000


@dataclass(frozen=True, slots=True)
class Asked:
    """The command's options as they were typed."""

    model: str | None
    revision: str | None
    load: Load
    policies: str = "one,static,contiguous,quire"
    reserve_tokens: str = ""
    price_per_hour: float = 1.0
    repeat: int = 1
    simulate: str | None = None
    num_blocks: int | None = None

    def chosen(self) -> list[Policy]:
        """The policies, or the `InvalidSetting` that names what cannot be meant."""
        self.load.check()
        if not 0 < self.price_per_hour < inf:
            raise InvalidSetting("--price-per-hour is out of range", got=self.price_per_hour, allowed="above 0")
        if self.repeat < 1:
            raise InvalidSetting("--repeat is too small", got=self.repeat, allowed="1 or more")
        if self.simulate is None and self.num_blocks is not None:
            raise InvalidSetting("--num-blocks needs --simulate", hint="Say --kv-cache-memory-bytes.")
        if self.simulate is not None and self.model is not None:
            raise InvalidSetting("--simulate runs no model", got=self.model)
        return policies_named(_listed(self.policies), _numbers(self.reserve_tokens))


class Timed:
    """A real runner and the clock on the wall."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    @property
    def now_s(self) -> float:
        """Seconds."""
        return time.perf_counter()

    def run(self, step: Step) -> StepResult:
        """Compute `step`."""
        return self._runner.run(step)

    def wait_until(self, at_s: float) -> None:
        """Sleep until it is due."""
        time.sleep(max(0.0, at_s - time.perf_counter()))


def run(asked: Asked, engine: EngineSettings, tell: Tell) -> dict[str, Any]:
    """Run every policy and report; raises `QuireError`."""
    policies = asked.chosen()
    arrivals = asked.load.arrivals()
    longest = max(one.num_prompt + one.num_output for one in arrivals)
    wanted = engine.max_model_len or max(USUAL_MODEL_LEN, longest)
    if asked.simulate is not None:
        setting, machine_of, about = _modelled(asked, replace(engine, max_model_len=wanted))
        asks = asks_of(arrivals, wanted, blank_prompts)
        served = _rounds(policies, setting, asks, machine_of, asked, tell)
        return report(served, asks, about | _about(asked, setting, len(arrivals) - len(asks)))
    context = read_model_spec(resolve(asked.model, asked.revision).folder).context_length
    settings = replace(engine, max_model_len=engine.max_model_len or min(wanted, context), itl_target=_target(engine))
    prepared = prepare(asked.model, asked.revision, settings)
    for line in describe(prepared):
        tell(line)
    asks = asks_of(arrivals, prepared.plan.max_model_len, random_prompts(asked.load.seed, prepared.spec.vocab_size))
    return _really(prepared, policies, asks, asked, tell, len(arrivals) - len(asks))


def _really(
    prepared: Prepared, policies: list[Policy], asks: list[Ask], asked: Asked, tell: Tell, num_left_out: int
) -> dict[str, Any]:
    plan = prepared.plan
    setting = setting_of(
        max_num_seqs=plan.max_num_seqs,
        max_num_batched_tokens=plan.max_num_batched_tokens,
        max_model_len=plan.max_model_len,
        block_size=plan.block_size,
        num_blocks=plan.num_blocks,
        scheduling_policy=plan.scheduling_policy,
        itl_floor_s=plan.itl_floor_s,
        itl_factor=plan.itl_factor,
        prefix_cache=plan.prefix_cache,
    )
    built = build_engine(plan, prepared.folder)
    try:
        machine = Timed(built.engine.runner)
        short = [replace(ask, at_s=0.0, num_output=WARM_TOKENS, most_tokens=WARM_TOKENS) for ask in asks]
        for policy in policies:
            _serve(policy, setting, short[:WARM_REQUESTS], machine, None)
        served = _rounds(policies, setting, asks, lambda: machine, asked, tell)
    finally:
        built.device.close()
    compare(served)
    about = {
        "model": prepared.name,
        "weights": str(plan.precision),
        "kv_dtype": plan.kv_dtype,
        "cpu": prepared.hardware.cpu_model,
        "isa": built.isa,
        "threads": plan.threads,
        "kv_bytes": plan.kv_bytes,
        "outputs_equal": len(policies) > 1 or None,
    }
    return report(served, asks, about | _about(asked, setting, num_left_out))


def _modelled(asked: Asked, engine: EngineSettings) -> tuple[Setting, Callable[[], Machine], dict[str, Any]]:
    law = asked.simulate or ""
    named = DEVICES.get(law)
    device = named.device if named is not None else device_of(law)
    num_blocks = asked.num_blocks or MODELLED_BLOCKS
    if named is not None and asked.num_blocks is None:
        kv_bytes = engine.kv_cache_memory_bytes or named.kv_bytes
        num_blocks = kv_bytes // (named.shape.kv_token_bytes * engine.block_size)
    elif engine.kv_cache_memory_bytes is not None:
        raise InvalidSetting("--kv-cache-memory-bytes says nothing without a model", hint="Say --num-blocks.")
    setting = setting_of(
        max_num_seqs=engine.max_num_seqs,
        max_num_batched_tokens=engine.max_num_batched_tokens,
        max_model_len=engine.max_model_len or USUAL_MODEL_LEN,
        block_size=engine.block_size,
        num_blocks=num_blocks,
        scheduling_policy=engine.scheduling_policy,
        itl_floor_s=_target(engine) or inf,
        prefix_cache=engine.prefix_cache,
    )
    return setting, lambda: Modelled(device), {"device": law, "modelled": device}


def _rounds(
    policies: Sequence[Policy],
    setting: Setting,
    asks: Sequence[Ask],
    machine_of: Callable[[], Machine],
    asked: Asked,
    tell: Tell,
) -> list[Served]:
    """Every policy in turn, `repeat` times; of each the run whose duration is the median."""
    found: dict[str, list[Serving]] = {policy.name: [] for policy in policies}
    for _ in range(asked.repeat):
        for policy in policies:
            serving = _serve(policy, setting, asks, machine_of(), asked.load.concurrency)
            tell(f"{policy.name:<16} {serving.seconds:.4g} s")
            found[policy.name].append(serving)
    served = []
    for policy in policies:
        runs = sorted(found[policy.name], key=lambda serving: serving.seconds)
        served.append(Served(policy, runs[(len(runs) - 1) // 2], [run.seconds for run in found[policy.name]]))
    return served


def _serve(policy: Policy, setting: Setting, asks: Sequence[Ask], machine: Machine, concurrency: int | None) -> Serving:
    serving = Serving(policy.build(setting), asks, machine, concurrency)
    while serving.advance():
        pass
    serving.check()
    return serving


def compare(served: Sequence[Served]) -> None:
    """Raise `GenerationFailed` unless every policy drew the same tokens for every request."""
    first = served[0]
    for other in served[1:]:
        for name, visit in first.serving.visits.items():
            if other.serving.visits[name].tokens != visit.tokens:
                names = f"request {name} under {first.policy.name} and {other.policy.name}"
                raise GenerationFailed("two policies drew different tokens", got=names)


def _about(asked: Asked, setting: Setting, num_left_out: int) -> dict[str, Any]:
    load, limits = asked.load, setting.limits
    sizes = {"input_tokens": load.input_tokens, "output_tokens": load.output_tokens}
    return {
        **({"trace": load.trace.name} if load.trace else sizes),
        "rate": load.rate,
        "concurrency": load.concurrency,
        "left_out": num_left_out,
        "max_model_len": limits.max_model_len,
        "max_num_seqs": limits.max_num_seqs,
        "max_num_batched_tokens": limits.max_num_batched_tokens,
        "kv_tokens": setting.num_blocks * limits.block_size,
        "price_per_hour": asked.price_per_hour,
        "repeat": asked.repeat,
        "seed": load.seed,
    }


def _target(engine: EngineSettings) -> float:
    """Nobody waits for single tokens, unless somebody says so."""
    return engine.itl_target or 0.0


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in _listed(text)]
    except ValueError:
        raise InvalidSetting(
            "--reserve-tokens cannot be read", got=text, allowed="numbers, such as 2048,4096"
        ) from None
