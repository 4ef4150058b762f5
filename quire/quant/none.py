"""Weights as they are, in bfloat16, float16 or float32, or rounded to fp8 with one scale a row.

Knows: the packing door of `ops.linear`. Does not know: models, files, where a part stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quire.ops.device import Device
from quire.ops.linear import PackedWeight, linear, pack
from quire.precision import Precision


class Unquantized:
    """One [num_outputs, num_inputs] tensor a part, packed to the precision's dtype; see `quant.WeightFormat`."""

    __slots__ = ("device", "precision")

    def __init__(self, device: Device, precision: Precision) -> None:
        self.device, self.precision = device, precision

    def wanted(self, name: str, num_outputs: int, num_inputs: int) -> dict[str, tuple[int, ...]]:
        """`name`.weight."""
        return {f"{name}.weight": (num_outputs, num_inputs)}

    def hold(self, parts: Sequence[Mapping[str, Any]]) -> PackedWeight:
        """Reads every part once, in parallel; nothing but the packed copy is kept."""
        return pack(self.device, [array for part in parts for array in part.values()], self.precision.dtype)

    multiply = staticmethod(linear)
    refine = None


def make(device: Device, precision: Precision) -> Unquantized:
    """The format for bfloat16 and float32; float16 and fp8 have kernels on a GPU alone."""
    return Unquantized(device, precision)
