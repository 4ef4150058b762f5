"""Kernels that lay bare the parts of a draw. Knows: `kernels/triton/draw_parts.py`. Does not know: what is right."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl

from quire.kernels.triton.draw_parts import random_bits, share, weigh


@triton.jit
def _weigh(x_ptr, out_ptr, peak, inv_temperature, BLOCK: tl.constexpr):
    places = tl.arange(0, BLOCK)
    tl.store(out_ptr + places, weigh(tl.load(x_ptr + places), peak, inv_temperature))


@triton.jit
def _bits(asked_ptr, out_ptr):
    bits = random_bits(tl.load(asked_ptr), tl.load(asked_ptr + 1), tl.load(asked_ptr + 2))
    tl.store(out_ptr, bits)
    tl.store(out_ptr + 1, share(bits, tl.load(asked_ptr + 3)))


def weights(x: Any, inv_temperature: float) -> Any:
    """Of ascending float32 `x`, a power of two of them."""
    out = torch.empty(len(x), dtype=torch.int64)
    scale = torch.tensor([x[-1], inv_temperature])
    _weigh[(1,)](torch.from_numpy(x), out, float(scale[0]), float(scale[1]), len(x))
    return out.numpy()


def bits(seed: int, index: int, position: int, total: int) -> tuple[int, int]:
    """53 random bits, and their share of `total`."""
    asked, out = torch.from_numpy(np.array([seed, index, position, total], np.int64)), torch.empty(2, dtype=torch.int64)
    _bits[(1,)](asked, out)
    return int(out[0]), int(out[1])
