"""The gated feed-forward layer (SwiGLU, arXiv 2002.05202).

Knows: gate, up and down. Does not know: the block around it.

Legend: T tokens, H hidden, I intermediate.
"""

from __future__ import annotations

from dataclasses import dataclass

from quire.layers.forward import Forward
from quire.layers.linear import Linear
from quire.layers.source import Float32, Source
from quire.ops.silu_mul import silu_mul


@dataclass(frozen=True, slots=True)
class MLP:
    """residual += down(silu(gate(x)) * up(x))."""

    gate_up: Linear
    down: Linear

    @classmethod
    def load(cls, source: Source, prefix: str, hidden_size: int, intermediate_size: int, bias: bool) -> MLP:
        """Reads gate_proj, up_proj and down_proj under `prefix`."""
        parts = {"gate_proj": intermediate_size, "up_proj": intermediate_size}
        gate_up = Linear.load(source, prefix, parts, hidden_size, bias)
        return cls(gate_up, Linear.load(source, prefix, {"down_proj": hidden_size}, intermediate_size, bias))

    def __call__(self, x_TH: Float32, residual_TH: Float32, forward: Forward) -> None:
        """Adds to `residual_TH`."""
        device, arena, num_tokens, width = forward.device, forward.arena, len(x_TH), self.gate_up.num_outputs
        gate_up_T2I = arena.view("gate_up", (num_tokens, width))
        hidden_TI = arena.view("mlp_hidden", (num_tokens, width // 2))
        self.gate_up(device, x_TH, gate_up_T2I)
        silu_mul(device, gate_up_T2I, hidden_TI)
        self.down(device, hidden_TI, residual_TH, True)
