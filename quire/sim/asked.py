"""Knows: what a simulation may be asked for in plain values, and what none could mean. Does not know: who asks."""

from __future__ import annotations

from dataclasses import fields
from math import inf
from pathlib import Path

from quire.errors import InvalidSetting
from quire.plan import ITL_FACTOR, ITL_FLOOR_S
from quire.scheduling.cost import KNEE_TOKENS, Coefficients
from quire.scheduling.limits import SchedulerLimits
from quire.scheduling.pace import ItlTarget
from quire.scheduling.policy import policy_named
from quire.sim.device import ModelledDevice
from quire.sim.law import Timed, law_of, read_law
from quire.sim.replay import VLLM, Served

HIGHEST_PRICE_S = 1e6
NUM_TAUGHT = 200  # of timed steps: what a scheduler remembers


def served_as(
    *,
    law: str,
    num_blocks: int,
    block_size: int,
    max_num_seqs: int,
    max_num_batched_tokens: int,
    max_model_len: int,
    policy: str = "fair",
    itl_target: float | None = None,
    speed: float = 1.0,
    num_tenants: int = 1,
    ttft_goal_s: float = 2.0,
    itl_goal_s: float = 0.2,
    num_flex: int = 0,
) -> Served:
    """These values as one, or the `InvalidSetting` that names the first that means nothing."""
    for name, value in (("speed", speed), ("tenants", num_tenants), ("num-blocks", num_blocks)):
        if not 0 < value < inf:
            raise InvalidSetting(f"--{name} is out of range", got=value, allowed="a number above 0")
    return Served(
        limits=SchedulerLimits(max_num_seqs, max_num_batched_tokens, max_model_len, block_size),
        num_blocks=num_blocks,
        device=device_of(law),
        policy=policy if policy == VLLM else policy_named(policy).name,
        itl_target=target_of(itl_target),
        speed=speed,
        num_tenants=num_tenants,
        ttft_goal_s=ttft_goal_s,
        itl_goal_s=itl_goal_s,
        num_flex=num_flex,
    )


def served_as_timed(
    timed: Timed,
    *,
    num_blocks: int,
    block_size: int,
    max_num_seqs: int,
    max_num_batched_tokens: int,
    max_model_len: int,
    policy: str,
    itl_floor_s: float,
    itl_factor: float,
    prefix_cache: bool,
) -> Served:
    """An engine whose steps were timed, as a simulation: on a device that keeps their law, with a scheduler that has
    learnt from them; each client asks for the very length of its answer."""
    return Served(
        limits=SchedulerLimits(max_num_seqs, max_num_batched_tokens, max_model_len, block_size),
        num_blocks=num_blocks,
        device=law_of(timed),
        policy=policy_named(policy).name,
        itl_target=ItlTarget(itl_floor_s, itl_factor),
        prefix_cache=prefix_cache,
        lengths_known=True,
        taught=tuple(timed[:: -(-len(timed) // NUM_TAUGHT)]),
    )


def target_of(itl_target: float | None) -> ItlTarget:
    """What `--itl-target` stands for, as the plan reads it: None is the rule of its own accord, 0 no bound."""
    if itl_target is None:
        return ItlTarget(ITL_FLOOR_S, ITL_FACTOR)
    if not 0 <= itl_target < inf:
        raise InvalidSetting("--itl-target is no time", got=itl_target, allowed="0 or more seconds")
    return ItlTarget(itl_target or inf)


def device_of(law: str) -> ModelledDevice:
    """`fixed=0.02,token=6e-5,knee=8`: the names of `Coefficients` without their unit, which is seconds; or a file."""
    if law.endswith(".json"):
        return read_law(Path(law))
    names = [entry.name.removesuffix("_s") for entry in fields(Coefficients)]
    prices: dict[str, float] = {}
    for part in filter(None, law.split(",")):
        name, _, text = part.partition("=")
        prices[name] = _price(text)
        if name not in (*names, "knee") or not 0 <= prices[name] < HIGHEST_PRICE_S:
            raise InvalidSetting("--law cannot be read", got=part, allowed=f"{', '.join(names)} or knee, = 0 or more")
    knee = int(prices.pop("knee", KNEE_TOKENS))
    if not any(prices.values()):
        raise InvalidSetting("--law gives a device that takes no time", got=law, allowed="a price above 0")
    return ModelledDevice(Coefficients(**{f"{name}_s": price for name, price in prices.items()}), knee)


def _price(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0
