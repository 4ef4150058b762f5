"""What the sampling tests share: draws, rows, and the comparison with the definition.

Knows: shapes and parameters, the definition. Does not know: which device draws.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from benchmarks.gpu.same_draws import difference
from quire.kernels.reference.sample import sample as reference
from quire.ops.device import Device
from quire.request import SamplingParams
from quire.sampling.sampler import Sampler
from quire.step import Draw, WorkResult

SIZES = (1, 2, 17, 255, 256, 257, 512, 5000)


def draw(params: SamplingParams, history: Any = (1, 2), indices: tuple[int, ...] = (0,), **more: Any) -> Draw:
    return Draw(params, indices, history, num_prompt=more.pop("num_prompt", len(history)), **more)


def rows(size: int = 50, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, size).astype(np.float32)


def same(got: WorkResult, expected: WorkResult) -> None:
    """Tokens and ranks exactly, log probabilities but for the last bit of a logarithm."""
    assert difference(got, expected) == ""


def check(device: Device, table_RV: np.ndarray, asked: list[Draw]) -> None:
    """A step's draws on `device` are the definition's."""
    expected = [reference(row, how) for row, how in zip(table_RV, asked, strict=True)]
    for one, other in zip(Sampler(device).draw(device.put(table_RV), asked), expected, strict=True):
        same(one, other)


@st.composite
def logits(drawn: st.DrawFn, size: int) -> np.ndarray:
    """A row of normal logits: smooth, in steps (many are equal), all equal, peaked, huge, or partly next to nothing."""
    row = rows(size, drawn(st.integers(0, 10**6)))
    kind = drawn(st.sampled_from(["smooth", "steps", "equal", "peaked", "huge", "holes", "zeros"]))
    if kind == "steps":
        row = np.round(row)
    elif kind == "equal":
        row[:] = -4.5
    elif kind == "peaked":
        row[drawn(st.integers(0, size - 1))] += 30
    elif kind == "huge":
        row *= np.float32(1e30)
        row[drawn(st.integers(0, size - 1))] = -3.4e38
    elif kind == "holes":
        row[np.abs(row) > 2] = -3e38
        row[drawn(st.integers(0, size - 1))] = 0.0
    elif kind == "zeros":
        row = np.where(row > 0, np.float32(0.0), np.float32(-0.0))
    return row


@st.composite
def draws(drawn: st.DrawFn, size: int) -> Draw:
    """Any way to draw from a row of `size` logits."""
    tokens = st.integers(0, size - 1)
    history = drawn(st.lists(tokens, min_size=1, max_size=30))
    params = SamplingParams(
        temperature=drawn(st.sampled_from([0.0, 1e-300, 0.01, 0.7, 1.0, 2.0])),
        top_p=drawn(st.sampled_from([1.0, 0.9, 0.3, 1e-9, 1 - 1e-7, 1 - 2**-53])),
        top_k=drawn(st.sampled_from([0, 0, -1, 1, 2, 40, 1000, 2**31 - 1])),
        min_p=drawn(st.sampled_from([0.0, 0.0, 1e-300, 0.05, 1.0])),
        repetition_penalty=drawn(st.sampled_from([1.0, 1.3, 0.5, 1e-300])),
        presence_penalty=drawn(st.sampled_from([0.0, 0.5, -2.0])),
        frequency_penalty=drawn(st.sampled_from([0.0, 0.7, -0.1])),
        logit_bias=drawn(st.none() | st.dictionaries(tokens, st.floats(-100, 100), max_size=3)),
        seed=drawn(st.integers(-(2**63), 2**63 - 1)),
        logprobs=drawn(st.sampled_from([None, None, 0, 1, 20])),
        allowed_token_ids=drawn(st.none() | st.none() | st.lists(tokens, min_size=1, max_size=6)),
    )
    indices = tuple(drawn(st.lists(st.integers(0, 127), min_size=1, max_size=3, unique=True)))
    banned = tuple(drawn(st.lists(tokens, max_size=2)))
    num_prompt = drawn(st.integers(0, len(history)))
    return Draw(params, indices, history, num_prompt, banned, bad_sequences=drawn(bad_sequences(history, size)))


@st.composite
def bad_sequences(drawn: st.DrawFn, history: list[int], size: int) -> tuple[tuple[int, ...], ...]:
    """Bad words, half of which go on where `history` ends, or reach back into its prompt."""
    tokens = st.integers(0, size + 3)
    any_ = st.lists(tokens, min_size=1, max_size=3)
    ending = st.integers(1, len(history)).flatmap(lambda count: tokens.map(lambda last: [*history[-count:], last]))
    return tuple(map(tuple, drawn(st.lists(any_ | ending, max_size=4))))
