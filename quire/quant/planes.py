"""Weights of a head in two planes of 4 bits, rounded while they are read.

Knows: the quantizing door of `ops.linear`. Does not know: models, files, where a part stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quire.ops.device import Device
from quire.ops.linear import PackedWeight, linear, quantize_planes
from quire.ops.refine import refine
from quire.precision import Precision


class Planes:
    """One [num_outputs, num_inputs] tensor a part, held as int4x2; see `quant.WeightFormat`."""

    __slots__ = ("device", "precision")

    def __init__(self, device: Device, precision: Precision) -> None:
        self.device, self.precision = device, precision

    def wanted(self, name: str, num_outputs: int, num_inputs: int) -> dict[str, tuple[int, ...]]:
        """`name`.weight."""
        return {f"{name}.weight": (num_outputs, num_inputs)}

    def hold(self, parts: Sequence[Mapping[str, Any]]) -> PackedWeight:
        """Reads every part once, in parallel; nothing but the packed copy is kept."""
        return quantize_planes(self.device, [array for part in parts for array in part.values()])

    multiply = staticmethod(linear)
    refine = staticmethod(refine)


def make(device: Device, precision: Precision) -> Planes:
    """w = scale * (16 * high + low), one scale a row; a product reads `low` of the best outputs alone."""
    return Planes(device, precision)
