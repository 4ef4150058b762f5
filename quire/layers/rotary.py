"""Rotary position embedding: tables of cosines and sines from the configuration.

Knows: the frequencies of every rope kind. Does not know: queries, keys, or how long any sequence is now.

Everything is computed in float32, in the order in which transformers computes it, so that angles at far positions
(where float32 rounds them) agree too. Sources: RoFormer, arXiv 2104.09864; YaRN, arXiv 2309.00071; Llama 3.1's scaling
as the reference code of its release has it.

Legend: P positions, D head_dim, D2 = D / 2 pairs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quire.model_spec import ModelSpec, RopeSpec

Float32 = npt.NDArray[np.float32]
CHUNK_POSITIONS = 8192  # bounds the temporary arrays of a long context


@dataclass(frozen=True, slots=True)
class Rotary:
    """cos and sin of position times frequency, both [P, D2] float32, times the attention factor of YaRN."""

    cos_PD2: Float32
    sin_PD2: Float32


def make_rotary(spec: ModelSpec, num_positions: int | None = None) -> Rotary:
    """Tables of the first `num_positions` positions; by default the model's whole context."""
    num_positions = num_positions or spec.context_length
    frequencies_D2, factor = frequencies(spec.rope, spec.head_dim, spec.max_position_embeddings, num_positions)
    cos_PD2 = np.empty((num_positions, spec.head_dim // 2), np.float32)
    sin_PD2 = np.empty_like(cos_PD2)
    for first in range(0, num_positions, CHUNK_POSITIONS):
        rows = slice(first, min(first + CHUNK_POSITIONS, num_positions))
        angles = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] * frequencies_D2
        cos_PD2[rows] = np.cos(angles) * np.float32(factor)
        sin_PD2[rows] = np.sin(angles) * np.float32(factor)
    return Rotary(cos_PD2, sin_PD2)


def frequencies(rope: RopeSpec, head_dim: int, max_positions: int, num_positions: int) -> tuple[Float32, float]:
    """(radians per position [D2], factor on cos and sin).

    `max_positions` is the configuration's maximum. Dynamic scaling is fixed once: at `num_positions` where that is
    beyond the maximum, else unscaled.
    """
    if rope.kind == "linear":
        return _plain(rope.theta, head_dim) / np.float32(rope.factor), 1.0
    if rope.kind == "dynamic":
        stretch = rope.factor * max(num_positions, max_positions) / max_positions - (rope.factor - 1)
        return _plain(rope.theta * stretch ** (head_dim / (head_dim - 2)), head_dim), 1.0
    if rope.kind == "llama3":
        return _llama3(rope, _plain(rope.theta, head_dim)), 1.0
    if rope.kind == "yarn":
        return _yarn(rope, head_dim), _yarn_attention_factor(rope)
    return _plain(rope.theta, head_dim), 1.0


def _powers(theta: float, head_dim: int) -> Float32:
    """theta^(2i / D), exponent and result rounded to float32, the power itself computed in float64."""
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    return np.power(np.float64(np.float32(theta)), exponents.astype(np.float64)).astype(np.float32)


def _plain(theta: float, head_dim: int) -> Float32:
    """theta^(-2i / D)."""
    return np.float32(1) / _powers(theta, head_dim)


def _llama3(rope: RopeSpec, plain_D2: Float32) -> Float32:
    """Long wavelengths are divided by the factor, short ones kept, those between blended."""
    original = np.float32(rope.original_max_position_embeddings)
    low, high, factor = np.float32(rope.low_freq_factor), np.float32(rope.high_freq_factor), np.float32(rope.factor)
    wavelengths = np.float32(2 * math.pi) / plain_D2
    smooth = (original / wavelengths - low) / (high - low)
    blended = (1 - smooth) * plain_D2 / factor + smooth * plain_D2
    scaled = np.where(wavelengths > original / low, plain_D2 / factor, blended)
    return np.where(wavelengths < original / high, plain_D2, scaled).astype(np.float32)


def _yarn(rope: RopeSpec, head_dim: int) -> Float32:
    """Pairs that turn often keep their frequency, pairs that turn rarely are divided by the factor, a ramp between."""
    powers = _powers(rope.theta, head_dim)
    first, last = _yarn_range(rope, head_dim)
    ramp = (np.arange(head_dim // 2, dtype=np.float32) - np.float32(first)) / np.float32(last - first)
    keep = 1 - np.clip(ramp, 0, 1)
    return (1 / (np.float32(rope.factor) * powers) * (1 - keep) + 1 / powers * keep).astype(np.float32)


def _yarn_range(rope: RopeSpec, head_dim: int) -> tuple[float, float]:
    """Pairs between which the ramp runs: those that turn beta_fast and beta_slow times in the original context."""

    def pair(turns: float) -> float:
        return (
            head_dim
            * math.log(rope.original_max_position_embeddings / (turns * 2 * math.pi))
            / (2 * math.log(rope.theta))
        )

    first, last = pair(rope.beta_fast), pair(rope.beta_slow)
    if rope.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_dim - 1)
    return first, last + 0.001 if first == last else last


def _yarn_attention_factor(rope: RopeSpec) -> float:
    """The published temperature 0.1 ln(factor) + 1, or the ratio of two of them, unless the config gives a number."""
    if rope.attention_factor is not None:
        return rope.attention_factor
    if rope.mscale and rope.mscale_all_dim:
        return _temperature(rope.factor, rope.mscale) / _temperature(rope.factor, rope.mscale_all_dim)
    return _temperature(rope.factor, 1.0)


def _temperature(factor: float, mscale: float) -> float:
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0
