"""Weight formats: the folder is the registry, a format is a file.

Knows: what a format must offer. Does not know: models, files, layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

from quire.errors import InvalidSetting
from quire.ops.device import Device
from quire.precision import Precision

FORMATS: Mapping[str, str] = {
    "bfloat16": "none",
    "float32": "none",
    "int8": "int8",
    "int4": "int4",
}
TORCH_FORMATS: Mapping[str, str] = {**FORMATS, "float16": "none", "fp8": "none"}
CPU_FORMATS: Mapping[str, str] = {**FORMATS, "int4x2": "planes"}


class WeightFormat(Protocol):
    """How the weight of a linear layer is read, held and multiplied.

    `precision` says how its numbers are stored. A layer may be several checkpoint modules joined along their outputs
    ("parts", such as q, k and v).
    """

    precision: Precision
    refine: Any
    """`ops.refine.refine` where products leave some outputs rough, else None."""

    def wanted(self, name: str, num_outputs: int, num_inputs: int) -> dict[str, tuple[int, ...]]:
        """Tensors of the checkpoint that one part, the module `name`, is read from, with their shapes."""
        ...

    def hold(self, parts: Sequence[Mapping[str, Any]]) -> Any:
        """Pack the parts into one weight. Each part maps the names that `wanted` gave, in order, to arrays."""
        ...

    def multiply(
        self,
        device: Device,
        x_TK: Any,
        weight: Any,
        out_TN: Any,
        bias_N: Any = None,
        accumulate: bool = False,
        norm: tuple[Any, float] | None = None,
        silu: bool = False,
    ) -> None:
        """out = x W^T (+ bias) (+ out), x's rows normalised or gated on the way in, as `ops.linear.linear` says."""
        ...


def find_format(precision: Precision, device: Device) -> WeightFormat:
    """The format that holds weights of `precision`. Raises `InvalidSetting`."""
    formats = CPU_FORMATS if device.kind == "cpu" else TORCH_FORMATS
    if precision.dtype not in formats:
        raise InvalidSetting("there is no such weight format", got=precision.dtype, allowed=", ".join(formats))
    found: WeightFormat = import_module(f"quire.quant.{formats[precision.dtype]}").make(device, precision)
    return found
