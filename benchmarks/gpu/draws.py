"""Correctness of the draw: token for token, rank for rank what the NumPy definition draws, by the sampler that serves.

Knows: the definition, chains of sampling parameters. Does not know: models, kernels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.gpu import workers
from benchmarks.gpu.context import Context
from benchmarks.gpu.ops import Case, report
from benchmarks.gpu.same_draws import difference
from quire.kernels.reference.sample import sample as reference
from quire.ops.open_device import open_device
from quire.request import SamplingParams
from quire.sampling.sampler import Sampler
from quire.step import Draw

CHAINS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "temperature": {"temperature": 0.7},
    "top_k": {"temperature": 1.0, "top_k": 5},
    "top_k of all": {"temperature": 1.3, "top_k": 10**6},
    "top_p": {"temperature": 0.9, "top_p": 0.8},
    "top_p, next to all": {"temperature": 2.0, "top_p": 0.999},
    "min_p": {"temperature": 1.0, "min_p": 0.05},
    "all three": {"temperature": 1.1, "top_k": 40, "top_p": 0.6, "min_p": 0.01},
    "penalties": {"temperature": 0.8, "repetition_penalty": 1.4, "presence_penalty": 0.5, "frequency_penalty": 0.2},
    "bias": {"temperature": 0.8, "logit_bias": {3: 4.5, 7: -2.0}, "top_p": 0.9},
    "told": {"temperature": 0.5, "logprobs": 7},
    "told, greedy": {"temperature": 0.0, "logprobs": 0},
}


def row_of(kind: str, size: int, seed: int) -> np.ndarray:
    """Logits: smooth, with many equal ones as bfloat16 gives them, flat, or with one far above the others."""
    x = np.random.default_rng(seed).normal(0, 3, size).astype(np.float32)
    if kind == "equal ones":
        return (x * 8).round() / 8
    if kind == "flat":
        return x / 16
    if kind == "peaked":
        x[seed % size] += 30
    return x


def asked(chain: dict[str, Any], size: int, seed: int) -> Draw:
    """A draw after 30 tokens, the first ten of them prompt."""
    if "logit_bias" in chain:
        chain = {**chain, "logit_bias": {token: by for token, by in chain["logit_bias"].items() if token < size}}
    history = np.random.default_rng(seed).integers(0, min(size, 50), 30).tolist()
    return Draw(SamplingParams(seed=seed, **chain), (0,), history, 10)


def is_right(device: Any, table_RV: np.ndarray, draws: list[Draw]) -> bool:
    """All rows of a step."""
    got = Sampler(device).draw(device.put(table_RV), draws)
    wanted = [reference(row, how) for row, how in zip(table_RV, draws, strict=True)]
    return not any(difference(one, other) for one, other in zip(got, wanted, strict=True))


def cases(device: Any, sizes: tuple[int, ...], seeds: range) -> Iterator[Case]:
    """Each chain alone, all of them in one step, many draws of a row, rows that fail."""
    for size in sizes:
        for kind in ("smooth", "equal ones", "flat", "peaked"):
            for seed in seeds:
                table = np.stack([row_of(kind, size, seed + n) for n in range(len(CHAINS))])
                draws = [asked(chain, size, seed + n) for n, chain in enumerate(CHAINS.values())]
                yield f"all chains, {size} {kind} {seed}", lambda t=table, d=draws: is_right(device, t, d)
                for n, name in enumerate(CHAINS):
                    yield (
                        f"{name}, {size} {kind} {seed}",
                        lambda t=table[n : n + 1], d=draws[n : n + 1]: is_right(device, t, d),
                    )
        table = np.stack([row_of("smooth", size, n) for n in range(4)])
        table[0, size // 2], table[1, 0], table[2] = np.nan, np.inf, -np.inf
        draws = [asked(CHAINS["top_p"], size, n) for n in range(4)]
        yield f"rows that fail, {size}", lambda t=table, d=draws: is_right(device, t, d)
        many = dataclasses.replace(asked(CHAINS["told"], size, 1), indices=tuple(range(9)))
        yield f"many draws of a row, {size}", lambda t=table[3:], d=[many]: is_right(device, t, d)


def one_size(context: Context, size: int, num_seeds: int) -> None:
    """All comparisons of one vocabulary."""
    report(context, f"{size}", cases(open_device(context.device, 1, "float32"), (size,), range(num_seeds)))


def run(context: Context) -> None:
    """The part."""
    sizes, num_seeds = ((1, 300), 1) if context.tiny else ((128256, 32000, 5000, 257, 255, 1), 2)
    implementation = {op: how for op, how, _ in open_device(context.device, 1, "float32").explain()}["sample"]
    found = workers.spread(context, one_size, [(size, num_seeds) for size in sizes])
    workers.together(context.rows, f"draws, {implementation}", found)
