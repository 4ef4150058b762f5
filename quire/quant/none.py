"""Weights as they are, in bfloat16 or float32.

Knows: the packing door of `ops.linear`. Does not know: models, files, where a part stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quire.errors import InvalidSetting
from quire.ops.device import Device
from quire.ops.linear import PackedWeight, linear, pack

DTYPES = ("bfloat16", "float32")


class Unquantized:
    """One [num_outputs, num_inputs] tensor a part, packed to `dtype`; see `quant.WeightFormat`."""

    __slots__ = ("device", "dtype")

    def __init__(self, device: Device, dtype: str) -> None:
        self.device, self.dtype = device, dtype

    def wanted(self, name: str, num_outputs: int, num_inputs: int) -> dict[str, tuple[int, ...]]:
        """`name`.weight."""
        return {f"{name}.weight": (num_outputs, num_inputs)}

    def hold(self, parts: Sequence[Mapping[str, Any]]) -> PackedWeight:
        """Reads every part once, in parallel; nothing but the packed copy is kept."""
        return pack(self.device, [array for part in parts for array in part.values()], self.dtype)

    multiply = staticmethod(linear)


def make(device: Device, dtype: str) -> Unquantized:
    """The format for `dtype`. Raises `InvalidSetting` for one that no kernel multiplies."""
    if dtype not in DTYPES:
        raise InvalidSetting("--dtype has no such value", got=dtype, allowed=", ".join(DTYPES))
    return Unquantized(device, dtype)
