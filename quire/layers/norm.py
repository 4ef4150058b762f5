"""Root-mean-square norm of rows.

Knows: its weight and epsilon. Does not know: where it stands.
"""

from __future__ import annotations

from dataclasses import dataclass

from quire.layers.source import Float32, Source


@dataclass(frozen=True, slots=True)
class Norm:
    """out = x / sqrt(mean(x^2) + eps) * weight, per row."""

    weight_H: Float32
    eps: float

    @classmethod
    def load(cls, source: Source, name: str, size: int, eps: float) -> Norm:
        """Reads `name`.weight."""
        return cls(source.vector([f"{name}.weight"], [size]), eps)

    @property
    def parts(self) -> tuple[Float32, float]:
        """(weight_H, eps), as `ops.linear.linear` takes them."""
        return self.weight_H, self.eps
