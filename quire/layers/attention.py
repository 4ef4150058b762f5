"""Grouped-query attention over the paged cache, with rotary positions.

Knows: its projections and which layer of the cache is its own. Does not know: pages' owners, the block around it.

Legend: T tokens, H hidden, Q query heads, G kv heads, D head_dim, N = (Q + 2G) * D.
"""

from __future__ import annotations

from dataclasses import dataclass

from quire.layers.forward import Forward
from quire.layers.linear import Linear
from quire.layers.norm import Norm
from quire.layers.rotary import Rotary
from quire.layers.source import Float32, Source
from quire.ops.attention import attention
from quire.ops.rope_store import rope_store


@dataclass(frozen=True, slots=True)
class Heads:
    """Shape of an attention layer."""

    num_heads: int
    num_kv_heads: int
    head_dim: int


@dataclass(frozen=True, slots=True)
class Attention:
    """x += output(softmax(q k^T / sqrt(D)) v) with q, k, v of norm(x); in some families q and k normalised per head."""

    layer: int
    heads: Heads
    scale: float
    eps: float
    rotary: Rotary
    qkv: Linear
    output: Linear
    q_norm_D: Float32 | None
    k_norm_D: Float32 | None

    @classmethod
    def load(
        cls,
        source: Source,
        prefix: str,
        layer: int,
        hidden_size: int,
        heads: Heads,
        rotary: Rotary,
        *,
        qkv_bias: bool = False,
        output_bias: bool = False,
        head_norm_eps: float | None = None,
    ) -> Attention:
        """Reads q_proj, k_proj, v_proj and o_proj under `prefix`; with `head_norm_eps` also q_norm and k_norm."""
        q_size, kv_size = heads.num_heads * heads.head_dim, heads.num_kv_heads * heads.head_dim
        parts = {"q_proj": q_size, "k_proj": kv_size, "v_proj": kv_size}
        qkv = Linear.load(source, prefix, parts, hidden_size, qkv_bias)
        output = Linear.load(source, prefix, {"o_proj": hidden_size}, q_size, output_bias)
        q_norm = k_norm = None
        if head_norm_eps is not None:
            q_norm = Norm.load(source, f"{prefix}.q_norm", heads.head_dim, head_norm_eps).weight_H
            k_norm = Norm.load(source, f"{prefix}.k_norm", heads.head_dim, head_norm_eps).weight_H
        scale = heads.head_dim**-0.5
        return cls(layer, heads, scale, head_norm_eps or 0.0, rotary, qkv, output, q_norm, k_norm)

    def __call__(self, x_TH: Float32, norm: Norm, forward: Forward) -> None:
        """Stores K and V of the step's tokens, then adds to `x_TH`; reads it through `norm`."""
        self.attend(self.store(x_TH, norm, forward), x_TH, forward)

    def store(self, x_TH: Float32, norm: Norm, forward: Forward) -> Float32:
        """Stores K and V of the step's tokens; returns q_TQD."""
        arena, heads, num_tokens = forward.arena, self.heads, len(x_TH)
        qkv_TN = arena.view("qkv", (num_tokens, self.qkv.num_outputs))
        q_TQD = arena.view("q", (num_tokens, heads.num_heads, heads.head_dim))
        self.qkv(forward.device, x_TH, qkv_TN, norm=norm)
        rope_store(
            forward.device, qkv_TN, forward.positions_T, forward.slots_T, self.rotary.cos_PD2, self.rotary.sin_PD2,
            forward.kv, self.layer, self.q_norm_D, self.k_norm_D, self.eps, q_TQD, forward.flaws_T1,
        )  # fmt: skip
        return q_TQD

    def attend(self, q_TQD: Float32, x_TH: Float32, forward: Forward) -> None:
        """Adds to `x_TH` what `q_TQD` finds among the keys stored."""
        mixed_TK = forward.arena.view("mixed", (len(x_TH), self.heads.num_heads * self.heads.head_dim))
        attention(
            forward.device, q_TQD, forward.kv, self.layer, forward.query_starts_S1, forward.seq_lens_S,
            forward.block_tables_SB, self.scale, mixed_TK, forward.planned,
        )  # fmt: skip
        self.output(forward.device, mixed_TK, x_TH, accumulate=True)
