"""Root-mean-square norm of rows.

Knows: its weight and epsilon. Does not know: where it stands.
"""

from __future__ import annotations

from dataclasses import dataclass

from quire.layers.source import Float32, Source
from quire.ops.device import Device
from quire.ops.rms_norm import rms_norm


@dataclass(frozen=True, slots=True)
class Norm:
    """out = x / sqrt(mean(x^2) + eps) * weight, per row."""

    weight_H: Float32
    eps: float

    @classmethod
    def load(cls, source: Source, name: str, size: int, eps: float) -> Norm:
        """Reads `name`.weight."""
        return cls(source.vector([f"{name}.weight"], [size]), eps)

    def __call__(self, device: Device, x_TH: Float32, out_TH: Float32) -> None:
        """`out_TH` may be `x_TH`."""
        rms_norm(device, x_TH, self.weight_H, self.eps, out_TH)
