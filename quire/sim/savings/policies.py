"""Knows: the policies that are compared, by name, and what each imitates. Does not know: requests, or machines.

one           one request at a time, each with all the machine                   (`sim/peers/static.py`)
static        batches that begin and end together                                (`sim/peers/static.py`)
contiguous    continuous batching, memory reserved for the longest there can be  (`sim/peers/continuous.py`)
quire         this scheduler: continuous batching, memory by the block
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

from quire.cache.blocks import BlockPool
from quire.cache.prefix import PrefixIndex
from quire.errors import InvalidSetting
from quire.scheduling.limits import SchedulerLimits
from quire.scheduling.pace import ItlTarget
from quire.scheduling.scheduler import Scheduler
from quire.sim.peers.continuous import ContinuousReserving
from quire.sim.peers.static import StaticBatches
from quire.sim.savings.serving import Scheduling

NAMES = ("one", "static", "contiguous", "quire")
IMITATES = {
    "one": "a model's generate() behind a queue",
    "static": "generate() on padded batches, a static KV cache",
    "contiguous": "continuous batching before paging (Orca)",
    "quire": "",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """What all policies share: the limits, the memory; and how ours is set up."""

    limits: SchedulerLimits
    num_blocks: int
    scheduling_policy: str = "fair"
    itl_target: ItlTarget = ItlTarget()  # noqa: RUF009 - frozen
    prefix_cache: bool = True


def setting_of(
    *,
    max_num_seqs: int,
    max_num_batched_tokens: int,
    max_model_len: int,
    block_size: int,
    num_blocks: int,
    scheduling_policy: str = "fair",
    itl_floor_s: float = inf,
    itl_factor: float = 0.0,
    prefix_cache: bool = True,
) -> Setting:
    """Plain values as one; a number below 1 raises `InvalidSetting`."""
    limits = SchedulerLimits(max_num_seqs, max_num_batched_tokens, max_model_len, block_size)
    if num_blocks < 1:
        raise InvalidSetting("there is no KV memory", got=num_blocks, allowed="1 block or more")
    return Setting(limits, num_blocks, scheduling_policy, ItlTarget(itl_floor_s, itl_factor), prefix_cache)


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy of the comparison: `build` makes a scheduler with nobody in it."""

    name: str
    imitates: str
    build: Callable[[Setting], Scheduling]


def policies_named(names: Sequence[str], reservations: Sequence[int] = ()) -> list[Policy]:
    """The policies of these names, in order; `contiguous` once for each of `reservations` (tokens; none: the longest
    sequence that there can be). Raises `InvalidSetting`."""
    unknown = [name for name in names if name not in NAMES]
    if unknown or not names:
        raise InvalidSetting("--policies has no such value", got=", ".join(unknown), allowed=", ".join(NAMES))
    if any(size < 1 for size in reservations):
        raise InvalidSetting("--reserve-tokens is too small", got=min(reservations), allowed="1 or more")
    found: list[Policy] = []
    for name in dict.fromkeys(names):
        if name == "contiguous":
            found += [_contiguous(size) for size in reservations or (0,)]
        else:
            found.append(Policy(name, IMITATES[name], BUILDERS[name]))
    return found


def _one(setting: Setting) -> Scheduling:
    return StaticBatches(setting.limits, setting.num_blocks, max_rows=1)


def _static(setting: Setting) -> Scheduling:
    return StaticBatches(setting.limits, setting.num_blocks, setting.limits.max_num_seqs)


def _contiguous(reserve_tokens: int) -> Policy:
    def build(setting: Setting) -> Scheduling:
        longest = setting.limits.max_model_len
        return ContinuousReserving(setting.limits, setting.num_blocks, reserve_tokens or longest)

    return Policy(f"contiguous-{reserve_tokens or 'max'}", IMITATES["contiguous"], build)


def _quire(setting: Setting) -> Scheduling:
    prefix = PrefixIndex(setting.limits.block_size) if setting.prefix_cache else None
    pool = BlockPool(setting.num_blocks)
    return Scheduler(setting.limits, pool, prefix, setting.scheduling_policy, setting.itl_target)


BUILDERS = {"one": _one, "static": _static, "quire": _quire}
