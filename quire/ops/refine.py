"""Logits of a head in two planes, made exact where somebody needs them so.

Knows: the contract of refining. Does not know: why a token is wanted, draws.

Legend: R rows, K inputs, V vocabulary, N names, W words of 32 tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from quire.ops.device import Device
from quire.ops.linear import PackedWeight

NAMED, ALLOWED, ALL = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Wanted:
    """What every row wants exact beside its own best.

    `how_R` uint8: NAMED (nothing but names), ALLOWED (also the best of those that the mask allows) or ALL. `named_N`
    int32: tokens, those of row r at `starts_R1[r]` to `starts_R1[r + 1]` (int32).
    """

    how_R: Any
    named_N: Any
    starts_R1: Any


def wanted(names: Sequence[Sequence[int]], how: Sequence[int] | None = None) -> Wanted:
    """`names` are each row's tokens, `how` is NAMED for all where it is not given."""
    starts_R1 = np.zeros(len(names) + 1, np.int32)
    np.cumsum([len(each) for each in names], out=starts_R1[1:])
    named_N = np.array([token for each in names for token in each], np.int32)
    return Wanted(np.array(how if how is not None else [NAMED] * len(names), np.uint8), named_N, starts_R1)


def refine(
    device: Device,
    x_RK: Any,
    weight: PackedWeight,
    logits_RV: Any,
    wanted: Wanted,
    mask_RW: Any | None = None,
    norm: tuple[Any, float] | None = None,
) -> None:
    """Make logits exact that `linear(device, x_RK, weight, logits_RV, norm=norm)` left rough; weight of dtype int4x2.

    `mask_RW` int32: bit v % 32 of word v // 32 is 1 where token v is allowed; needed where a row wants ALLOWED. Of the
    allowed those become exact that `linear` would choose if there were no others. What is exact stays as it is, and a
    logit's bits do not depend on how it came to be exact, on other rows or on the number of threads.
    Raises TypeError for another type or layout, ValueError for shapes that do not fit, a token out of range, a `how_R`
    that is none or wants a mask that is not there.
    """
    norm_weight_K, eps = (None, 0.0) if norm is None else norm
    how_R, named_N, starts_R1 = wanted.how_R, wanted.named_N, wanted.starts_R1
    device.kernels.refine(x_RK, weight, logits_RV, how_R, mask_RW, named_N, starts_R1, norm_weight_K, eps)


def is_exact(logits: Any) -> Any:
    """bool, as many as `logits` (float32, of a head in two planes): what their last bits say."""
    return (np.ascontiguousarray(logits, np.float32).view(np.uint32) & 1).astype(bool)
