"""The gated feed-forward layer (SwiGLU, arXiv 2002.05202).

Knows: gate, up and down. Does not know: the block around it.

Legend: T tokens, H hidden, I intermediate.
"""

from __future__ import annotations

from dataclasses import dataclass

from quire.layers.forward import Forward
from quire.layers.linear import Linear
from quire.layers.norm import Norm
from quire.layers.source import Float32, Source


@dataclass(frozen=True, slots=True)
class MLP:
    """x += down(silu(gate(norm(x))) * up(norm(x)))."""

    gate_up: Linear
    down: Linear

    @classmethod
    def load(cls, source: Source, prefix: str, hidden_size: int, intermediate_size: int, bias: bool) -> MLP:
        """Reads gate_proj, up_proj and down_proj under `prefix`."""
        parts = {"gate_proj": intermediate_size, "up_proj": intermediate_size}
        gate_up = Linear.load(source, prefix, parts, hidden_size, bias)
        return cls(gate_up, Linear.load(source, prefix, {"down_proj": hidden_size}, intermediate_size, bias))

    def __call__(self, x_TH: Float32, norm: Norm, forward: Forward) -> None:
        """Adds to `x_TH`; reads it through `norm`."""
        device = forward.device
        gate_up_T2I = forward.arena.view("gate_up", (len(x_TH), self.gate_up.num_outputs))
        self.gate_up(device, x_TH, gate_up_T2I, norm=norm)
        self.down(device, gate_up_T2I, x_TH, accumulate=True, silu=True)
