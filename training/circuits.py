"""Copying from the first step: the heads that copying needs are written down, and training makes them its own.

A transformer of this size learns to copy what stands earlier (names, numbers, the values of a JSON object) only after
many millions of tokens, and then does so by an "induction" pair of heads (Olsson et al., "In-context learning and
induction heads", 2022): one writes into every position what the token before it was, another looks for the position
whose predecessor is the present token, and brings what stands there. Both can be written down:

    layer 0   q_i = rotated by one step, k_j = constant:   score = sum_f cos((i - j - 1) theta_f), largest at j = i - 1
    layer 1   q_i = C x_i, k_j = C x_(j-1), in the slow pairs of the rotation, where distance hardly turns them

Knows weights and the rotation's frequencies; knows no text.

Shapes: D hidden, K head width, H query heads, G key/value heads.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.model import Attention, Llama, Shape

CONSTANT = 0.15  # of every embedding, in dimension 0: three times the spread of the others
SHARPNESS = 2.2  # of looking one step back: the present token gets e^-6 of the weight of the one before
MATCH = 2.0  # of looking for a token: 32 agreeing dimensions against the chance agreement of hundreds of positions
SLOW_FROM = 16  # pairs of the rotation from here on turn by less than 0.01 a token
WRITE_BACK = 0.06  # scale of what the first head writes, about as long as an embedding
WRITE_COPY = 0.20  # scale of what the second writes: longer than all that was there, so that it decides


@torch.no_grad()
def install_copying(model: Llama, seed: int) -> None:
    """Overwrite the attention of layers 0 and 1, and dimension 0 of the embedding."""
    shape = model.shape
    generator = torch.Generator().manual_seed(seed)
    model.embed_tokens.weight[:, 0] = CONSTANT
    content_KD, place_KD = (_directions(shape.head_dim, shape, generator) for _ in range(2))
    _look_back(model, content_KD, place_KD)
    _look_for(model, content_KD, place_KD, generator)


def _directions(count: int, shape: Shape, generator: torch.Generator) -> Tensor:
    """`count` orthonormal directions (count, D) that leave dimension 0 alone."""
    random = torch.randn(shape.hidden_size - 1, count, generator=generator)
    return torch.cat((torch.zeros(count, 1), torch.linalg.qr(random).Q.T), dim=1)


def _look_back(model: Llama, content_KD: Tensor, place_KD: Tensor) -> None:
    """Head 0 of layer 0: the content of the token before, written in the direction of `place`."""
    shape, attention = model.shape, model.layers[0].self_attn
    half = shape.head_dim // 2
    theta_F = shape.rope_theta ** -(torch.arange(half) / half)
    query, key = attention.q_proj.weight, attention.k_proj.weight
    query[: shape.head_dim] = 0
    key[: shape.head_dim] = 0
    query[:half, 0] = SHARPNESS * theta_F.cos()
    query[half : shape.head_dim, 0] = -SHARPNESS * theta_F.sin()
    key[:half, 0] = SHARPNESS
    attention.v_proj.weight[: shape.head_dim] = content_KD
    attention.o_proj.weight[:, : shape.head_dim] = WRITE_BACK * place_KD.T


def _look_for(model: Llama, content_KD: Tensor, place_KD: Tensor, generator: torch.Generator) -> None:
    """All heads of layer 1: where the token before was this one, bring what stands there."""
    shape, attention = model.shape, model.layers[1].self_attn
    half, width = shape.head_dim // 2, shape.head_dim
    num_slow = half - SLOW_FROM
    slow = torch.cat((torch.arange(SLOW_FROM, half), torch.arange(SLOW_FROM, half) + half))
    group = shape.num_heads // shape.num_kv_heads
    for head in range(shape.num_kv_heads):
        part = slice(head * 2 * num_slow, (head + 1) * 2 * num_slow)
        attention.k_proj.weight[head * width : (head + 1) * width] = 0
        attention.k_proj.weight[head * width + slow] = MATCH * place_KD[part]
        for number in range(head * group, (head + 1) * group):
            attention.q_proj.weight[number * width : (number + 1) * width] = 0
            attention.q_proj.weight[number * width + slow] = MATCH * content_KD[part]
        _write_what_is_read(attention, head, WRITE_COPY, generator)


def _write_what_is_read(attention: Attention, head: int, scale: float, generator: torch.Generator) -> None:
    """Key/value head `head`, and the query heads of its group: values are a part of the token, written back there."""
    shape = attention.shape
    width, group = shape.head_dim, shape.num_heads // shape.num_kv_heads
    value_KD = _directions(width, shape, generator)
    attention.v_proj.weight[head * width : (head + 1) * width] = value_KD
    for number in range(head * group, (head + 1) * group):
        attention.o_proj.weight[:, number * width : (number + 1) * width] = scale * value_KD.T
