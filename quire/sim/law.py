"""The law of timed steps, and laws as files. Knows: a modelled device as JSON. Does not know: who timed the steps."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from math import isfinite
from pathlib import Path
from typing import Any

from quire.errors import InvalidSetting, StartError
from quire.scheduling.cost import Coefficients, CostModel, StepShape
from quire.sim.device import ModelledDevice, Unsteady, unsteady_of

Timed = list[tuple[StepShape, float]]  # steps, and the seconds that they took
MOST_SAMPLES = 4000
ALLOWED = "a file that `quire bench sim-check --law` wrote"


def law_of(timed: Timed) -> ModelledDevice:
    """The law that timed steps keep, and how unsteadily; of very many every so many."""
    some = timed[:: -(-len(timed) // MOST_SAMPLES) or 1]
    device = ModelledDevice(CostModel.calibrated(some).coefficients)
    return replace(device, unsteady=unsteady_of(device, timed))


def law_object(device: ModelledDevice) -> dict[str, Any]:
    """As plain values."""
    spread = [asdict(each) for each in device.unsteady]
    return {**asdict(device.law), "knee_tokens": device.knee_tokens, "unsteady": spread}


def write_law(path: Path, device: ModelledDevice) -> None:
    """Keep it; raises `StartError` where it cannot be written."""
    try:
        path.write_text(json.dumps(law_object(device), indent=1) + "\n", encoding="utf-8")
    except OSError as problem:
        raise StartError("the law cannot be written", got=str(path), hint=str(problem)) from problem


def read_law(path: Path) -> ModelledDevice:
    """What `write_law` wrote; `StartError` if it cannot be read, `InvalidSetting` if it says something else."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        names = [entry.name for entry in fields(Coefficients)]
        law = Coefficients(**{name: float(told[name]) for name in names})
        unsteady = [_unsteady(each) for each in told["unsteady"]]
        device = ModelledDevice(law, int(told["knee_tokens"]), tuple(unsteady))
    except OSError as problem:
        raise StartError("the law cannot be read", got=str(path), hint=str(problem)) from problem
    except (ValueError, TypeError, KeyError) as problem:
        raise InvalidSetting("this is not a law", got=str(path), allowed=ALLOWED) from problem
    prices = list(asdict(law).values())
    ratios = [ratio for each in unsteady for ratio in each.ratios]
    sizes = [(each.reads, each.most_tokens) for each in unsteady]
    sane = all(price >= 0 and isfinite(price) for price in prices) and any(prices)
    if not sane or not all(ratio > 0 and isfinite(ratio) for ratio in ratios) or sizes != sorted(set(sizes)):
        raise InvalidSetting("a law has prices or shares that mean nothing", got=str(path), allowed=ALLOWED)
    if not all(each.ratios for each in unsteady):
        raise InvalidSetting("a law says of some size of step nothing", got=str(path), allowed=ALLOWED)
    return device


def _unsteady(told: dict[str, Any]) -> Unsteady:
    return Unsteady(bool(told["reads"]), int(told["most_tokens"]), tuple(map(float, told["ratios"])))
