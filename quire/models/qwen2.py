"""Qwen2 and Qwen2.5 (arXiv 2407.10671, 2412.15115).

Knows: the picture of the network; what is its own: q, k and v always have a bias, the output never.
Does not know: batching, requests, files.
"""

from __future__ import annotations

from quire.layers.attention import Attention
from quire.layers.mlp import MLP
from quire.layers.norm import Norm
from quire.layers.rotary import Rotary
from quire.layers.source import Source
from quire.model_spec import ModelSpec
from quire.models.blocks import Block, Model, heads_of, load_decoder


def load(spec: ModelSpec, source: Source, rotary: Rotary) -> Model:
    """embed -> blocks -> norm -> head."""
    hidden, eps, heads = spec.hidden_size, spec.rms_norm_eps, heads_of(spec)

    def block(index: int, prefix: str) -> Block:
        input_norm = Norm.load(source, f"{prefix}.input_layernorm", hidden, eps)
        attention = Attention.load(
            source,
            f"{prefix}.self_attn",
            index,
            hidden,
            heads,
            rotary,
            qkv_bias=True,
        )
        post_norm = Norm.load(source, f"{prefix}.post_attention_layernorm", hidden, eps)
        mlp = MLP.load(source, f"{prefix}.mlp", hidden, spec.intermediate_size, bias=False)
        return Block(input_norm, attention, post_norm, mlp)

    return load_decoder(spec, source, block)
