"""Weights rounded to few bits, with a scale for each group of inputs: what int8 and int4 have in common.

Knows: the quantizing door of `ops.linear`. Does not know: models, files, where a part stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quire.ops.device import Device
from quire.ops.linear import PackedWeight, linear, quantize
from quire.precision import Precision


class Rounded:
    """One [num_outputs, num_inputs] tensor a part, quantized to `bits` while it is packed; see `quant.WeightFormat`."""

    __slots__ = ("bits", "device", "precision")

    def __init__(self, device: Device, precision: Precision, bits: int) -> None:
        self.device, self.precision, self.bits = device, precision, bits

    def wanted(self, name: str, num_outputs: int, num_inputs: int) -> dict[str, tuple[int, ...]]:
        """`name`.weight."""
        return {f"{name}.weight": (num_outputs, num_inputs)}

    def hold(self, parts: Sequence[Mapping[str, Any]]) -> PackedWeight:
        """Reads every part once, in parallel; nothing but the packed copy is kept."""
        arrays = [array for part in parts for array in part.values()]
        group_size = self.precision.group_size or None
        return quantize(self.device, arrays, self.bits, group_size, self.precision.symmetric)

    multiply = staticmethod(linear)
    refine = None
