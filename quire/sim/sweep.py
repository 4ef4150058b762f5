"""Knows: what `--sweep` may vary, and every combination of it. Does not know: what comes of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product

from quire.errors import InvalidSetting

SWEPT: Mapping[str, Callable[[str], int | float | str]] = {
    "num_blocks": int,
    "block_size": int,
    "max_num_seqs": int,
    "max_num_batched_tokens": int,
    "max_model_len": int,
    "policy": str,
    "itl_target": float,
    "speed": float,
    "num_tenants": int,
    "num_flex": int,
}
OPTIONS = {"scheduling_policy": "policy", "tenants": "num_tenants", "flex": "num_flex"}  # what the option is called
MAX_RUNS = 1000


def combinations(sweeps: Sequence[str]) -> Iterator[dict[str, int | float | str]]:
    """`("speed=1,2", "num-blocks=100")` as every combination of their values, the last one varying first."""
    named = dict([_sweep(text) for text in sweeps])
    num_runs = 1
    for values in named.values():
        num_runs *= len(values)
    if num_runs > MAX_RUNS:
        raise InvalidSetting("--sweep asks for too many runs", got=num_runs, allowed=f"at most {MAX_RUNS}")
    for chosen in product(*named.values()):
        yield dict(zip(named, chosen, strict=True))


def _sweep(text: str) -> tuple[str, list[int | float | str]]:
    name, _, values = text.partition("=")
    name = name.strip().removeprefix("--").replace("-", "_")
    key = OPTIONS.get(name, name)
    if key not in SWEPT:
        known = {key: key for key in SWEPT} | {key: name for name, key in OPTIONS.items()}
        allowed = ", ".join(sorted(name.replace("_", "-") for name in known.values()))
        raise InvalidSetting("--sweep varies what it cannot", got=text, allowed=allowed)
    try:
        return key, [SWEPT[key](value.strip()) for value in values.split(",")]
    except ValueError:
        raise InvalidSetting("--sweep has a value that is no number", got=text, allowed="name=1,2,3") from None
