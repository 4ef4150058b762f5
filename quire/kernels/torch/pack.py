"""Checkpoint arrays become weights on a device, as they are or rounded.

Knows: number formats, the formulas of `kernels/reference/quantize.py`. Does not know: which matrix it is.

Legend: N outputs, K inputs, C groups of L inputs a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from quire.kernels.torch.weight import TORCH_DTYPES, Weight, pack_int4

FP8_LARGEST = 448.0  # of float8 e4m3
TRIES = 12
ROWS_AT_ONCE = 4096  # quantized together: bounds the float32 temporaries


def joined(parts: Sequence[Tensor], dtype: str) -> Weight:
    """The matrices `parts` one below the other, rounded to `dtype`: "bfloat16", "float16" or "float32"."""
    num_inputs = parts[0].shape[1]
    data_NK = torch.empty(
        (sum(len(part) for part in parts), num_inputs), dtype=TORCH_DTYPES[dtype], device=parts[0].device
    )
    first = 0
    for part in parts:
        data_NK[first : first + len(part)].copy_(part)
        first += len(part)
    return Weight(data_NK, dtype, len(data_NK), num_inputs)


def quantized(parts: Sequence[Tensor], dtype: str, group_size: int = 0, symmetric: bool = True) -> Weight:
    """The same, rounded to "int8", "int4" or "fp8" with bfloat16 scales (see `Weight`).

    Raises ValueError for weights that are infinite or NaN: they would spoil a whole row.
    """
    pieces = [_rounded(piece, dtype, group_size, symmetric) for part in parts for piece in part.split(ROWS_AT_ONCE)]
    data, scales, offsets = (
        None if each[0] is None else torch.cat([one for one in each if one is not None])
        for each in zip(*pieces, strict=True)
    )
    assert data is not None
    return Weight(data, dtype, len(data), parts[0].shape[1], scales, offsets, group_size)


def _rounded(part: Tensor, dtype: str, group_size: int, symmetric: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    w_NK = part.float()
    if not bool(torch.isfinite(w_NK).all()):
        raise ValueError("a weight to be quantized is infinite or NaN")
    num_inputs = w_NK.shape[1]
    length = group_size or num_inputs
    w_NCL, valid_CL = _groups(w_NK, length)
    if dtype == "int4" and not symmetric:
        scale_NC, offset_NC = (found.to(torch.bfloat16) for found in _fit_range(w_NCL, valid_CL))
        inverse_NC1 = _inverse(scale_NC.float())[..., None]
        q_NCL = ((w_NCL - offset_NC.float()[..., None]) * inverse_NC1).round().clamp(0, 15)
        return pack_int4(_flat(q_NCL, num_inputs)), scale_NC, offset_NC
    if dtype == "int4":
        scale_NC = _fit_scale(w_NCL).to(torch.bfloat16)
        q_NCL = (w_NCL * _inverse(scale_NC.float())[..., None]).round().clamp(-8, 7)
        return pack_int4(_flat(q_NCL, num_inputs) + 8), scale_NC, None
    largest = 127.0 if dtype == "int8" else FP8_LARGEST
    scale_NC = _round_up(w_NCL.abs().amax(dim=2) / largest)
    q_NCL = w_NCL * _inverse(scale_NC.float())[..., None]
    if dtype == "int8":
        return _flat(q_NCL.round().clamp(-127, 127), num_inputs).to(torch.int8), scale_NC, None
    return _flat(q_NCL.clamp(-FP8_LARGEST, FP8_LARGEST), num_inputs).to(torch.float8_e4m3fn), scale_NC, None


def _groups(w_NK: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """[N, C, L] with zeros after the last input, and which of them are inputs."""
    num_inputs = w_NK.shape[1]
    num_groups = -(-num_inputs // length)
    padded = torch.nn.functional.pad(w_NK, (0, num_groups * length - num_inputs))
    valid_CL = (torch.arange(num_groups * length, device=w_NK.device) < num_inputs).reshape(num_groups, length)
    return padded.reshape(len(w_NK), num_groups, length), valid_CL


def _flat(q_NCL: Tensor, num_inputs: int) -> Tensor:
    return q_NCL.reshape(len(q_NCL), -1)[:, :num_inputs].contiguous()


def _inverse(scale: Tensor) -> Tensor:
    usable = scale.abs() >= torch.finfo(torch.float32).tiny
    return torch.where(usable, 1.0 / torch.where(usable, scale, 1.0), 0.0)


def _round_up(x: Tensor) -> Tensor:
    """The least bfloat16 that is not below the float32 `x` >= 0."""
    bits = x.contiguous().view(torch.int32).long()
    return ((bits + 0xFFFF) & 0xFFFF0000).to(torch.int32).view(torch.float32).to(torch.bfloat16)


def _sum(terms_NCL: Tensor) -> Tensor:
    """In float64, rounded once: whatever order a device adds in, the float32 is the same but for one in millions."""
    return terms_NCL.sum(dim=2, dtype=torch.float64).float()


def _fit_scale(w_NCL: Tensor) -> Tensor:
    """The least-squares scale [N, C] of the best of a dozen roundings to -8..7."""
    least, most = w_NCL.amin(dim=2).clamp(max=0), w_NCL.amax(dim=2).clamp(min=0)
    inverse = _inverse(torch.where(most < -least, least, most))
    best, scale = torch.full_like(inverse, -1.0), torch.zeros_like(inverse)
    for attempt in range(TRIES):
        q_NCL = (w_NCL * (inverse * -(8.75 - 0.25 * attempt))[..., None]).round().clamp(-8, 7)
        product, square = _sum(w_NCL * q_NCL), _sum(q_NCL * q_NCL).clamp(min=1)
        fit = product / square
        gain = product * fit
        scale = torch.where(best < gain, fit, scale)
        best = torch.maximum(best, gain)
    return scale


def _fit_range(w_NCL: Tensor, valid_CL: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and offset [N, C], in least squares, of the best of a dozen roundings to 0..15."""
    n, w = valid_CL.sum(dim=1).float(), _sum(w_NCL)
    least, most = w_NCL.amin(dim=2).clamp(max=0), w_NCL.amax(dim=2).clamp(min=0)
    middle, half = (least + most) * 0.5, (most - least) * 0.5
    best = torch.full_like(w, 3.0e38)
    scale, offset = torch.zeros_like(w), torch.zeros_like(w)
    for attempt in range(TRIES):
        reach = half * torch.tensor(1 - 0.03 * attempt, dtype=torch.float32)
        inverse = _inverse(reach * (2 / 15))
        q_NCL = ((w_NCL - (middle - reach)[..., None]) * inverse[..., None]).round().clamp(0, 15) * valid_CL
        q, wq = _sum(q_NCL), _sum(w_NCL * q_NCL)
        spread = n * _sum(q_NCL * q_NCL) - q * q
        wide = spread > 0.5
        slope = torch.where(wide, (n * wq - w * q) / torch.where(wide, spread, 1.0), 0.0)
        start = (w - slope * q) / n
        error = -(start * w + slope * wq)
        better = error < best
        scale, offset = torch.where(better, slope, scale), torch.where(better, start, offset)
        best = torch.minimum(error, best)
    return scale, offset
