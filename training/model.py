"""A Llama in plain torch, in the conventions of Hugging Face: rotate-half RoPE, grouped queries, SwiGLU, tied head.

Knows tensors and the names they have in a checkpoint; knows no text and no training.

Shapes: B rows, T positions, D hidden, H query heads, G key/value heads, K head width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of the network; 5.2 million parameters as they stand."""

    vocab_size: int = 4096
    hidden_size: int = 256
    intermediate_size: int = 704
    num_layers: int = 6
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 64
    context: int = 4096
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x_BTD: Tensor) -> Tensor:
        return F.rms_norm(x_BTD.float(), (x_BTD.shape[-1],), self.weight, self.eps)


def rotation(shape: Shape, positions_T: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin, (T, K): the angle of pair i is position * theta^(-2i/K); both halves hold the same angles."""
    exponents = torch.arange(0, shape.head_dim, 2).float() / shape.head_dim
    angles = positions_T[:, None].float() * shape.rope_theta**-exponents
    angles_TK = torch.cat((angles, angles), dim=-1)
    return angles_TK.cos(), angles_TK.sin()


def rotate(x_BHTK: Tensor, cos_TK: Tensor, sin_TK: Tensor) -> Tensor:
    low, high = x_BHTK.chunk(2, dim=-1)
    return x_BHTK * cos_TK + torch.cat((-high, low), dim=-1) * sin_TK


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.q_proj = nn.Linear(shape.hidden_size, shape.num_heads * shape.head_dim, bias=False)
        self.k_proj = nn.Linear(shape.hidden_size, shape.num_kv_heads * shape.head_dim, bias=False)
        self.v_proj = nn.Linear(shape.hidden_size, shape.num_kv_heads * shape.head_dim, bias=False)
        self.o_proj = nn.Linear(shape.num_heads * shape.head_dim, shape.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor, rope: tuple[Tensor, Tensor], past: list[Tensor] | None) -> Tensor:
        """`past` holds the keys and values of earlier positions, and is extended in place."""
        rows, length, _ = x_BTD.shape
        q, k, v = (
            project(x_BTD).view(rows, length, -1, self.shape.head_dim).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, *rope).to(v.dtype), rotate(k, *rope).to(v.dtype)
        if past is not None:
            if past:
                k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
            past[:] = [k, v]
        group = self.shape.num_heads // self.shape.num_kv_heads
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=length == k.shape[2])
        return self.o_proj(mixed.transpose(1, 2).reshape(rows, length, -1))


class MLP(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden_size, shape.norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden_size, shape.norm_eps)
        self.mlp = MLP(shape)

    def forward(self, x_BTD: Tensor, rope: tuple[Tensor, Tensor], past: list[Tensor] | None) -> Tensor:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), rope, past)
        return x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))


class Llama(nn.Module):
    """Ids to hidden states; `head` turns those into logits with the embedding's own weights."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_layers))
        self.norm = RMSNorm(shape.hidden_size, shape.norm_eps)

    def forward(self, ids_BT: Tensor, cache: list[list[Tensor]] | None = None) -> Tensor:
        """Hidden states (B, T, D). With `cache`, one list per layer, the ids follow those already in it."""
        start = cache[0][0].shape[2] if cache and cache[0] else 0
        rope = rotation(self.shape, torch.arange(start, start + ids_BT.shape[1]))
        x_BTD = self.embed_tokens(ids_BT)
        for index, layer in enumerate(self.layers):
            x_BTD = layer(x_BTD, rope, None if cache is None else cache[index])
        return self.norm(x_BTD)

    def head(self, x_D: Tensor) -> Tensor:
        return F.linear(x_D, self.embed_tokens.weight)

    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def initialise(model: Llama, seed: int) -> None:
    """Normal with 0.05 for the embedding, 1/sqrt(fan in) for matrices, zero for what writes to the residual."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            nn.init.zeros_(parameter)
        elif parameter.ndim == 2:
            std = 0.05 if name.startswith("embed") else parameter.shape[1] ** -0.5
            nn.init.normal_(parameter, std=std, generator=generator)
