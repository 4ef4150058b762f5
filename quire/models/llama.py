"""Llama 1, 2, 3.x (arXiv 2302.13971, 2307.09288, 2407.21783) and every model that is written as one.

Knows: the picture of the network; what is its own: biases only where the config says so.
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
            qkv_bias=spec.qkv_bias,
            output_bias=spec.output_bias,
        )
        post_norm = Norm.load(source, f"{prefix}.post_attention_layernorm", hidden, eps)
        mlp = MLP.load(source, f"{prefix}.mlp", hidden, spec.intermediate_size, bias=spec.mlp_bias)
        return Block(input_norm, attention, post_norm, mlp)

    return load_decoder(spec, source, block)
