"""What the device can do at most, measured: bytes read a second, operations of a matrix product a second.

    read      the sum of a large array: one pass, nothing written; the best of several sizes and kernels of torch's
    product   square matrices of bfloat16, and of fp8 where the device has it, the best of several sizes

A share of these is honest where a share of a data sheet is not: clocks, memory and driver are those of this minute.

Knows: torch. Does not know: models.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu.context import Context


@dataclass(frozen=True, slots=True)
class Roof:
    """Bytes a second read; operations a second of products in bfloat16, and in fp8 (None: the device has none)."""

    read_bytes_s: float
    bfloat16_ops_s: float
    fp8_ops_s: float | None


def seconds_each(context: Context, run: Callable[[], Any], seconds: float, least: int = 3) -> float:
    """Mean seconds of a `run` on the device, many in a row: what a launch costs the host is hidden behind them."""
    run()
    context.synchronize()
    count = least
    while True:
        begin = time.perf_counter()
        for _ in range(count):
            run()
        context.synchronize()
        taken = time.perf_counter() - begin
        if taken >= seconds / 2:
            return taken / count
        count *= 2


def read_rate(context: Context) -> float:
    """Bytes a second, the best of what torch reads with."""
    import torch

    num_bytes = 2**20 if context.tiny else 2**32
    best = 0.0
    for dtype in (torch.float32, torch.bfloat16):
        data = torch.ones(num_bytes // dtype.itemsize, dtype=dtype, device=context.torch)
        for read in (data.sum, data.amax):
            best = max(best, num_bytes / seconds_each(context, read, context.seconds / 4))
    vector = torch.ones(8192, dtype=torch.bfloat16, device=context.torch)
    matrix = torch.ones((num_bytes // (2 * 8192), 8192), dtype=torch.bfloat16, device=context.torch)
    return max(best, num_bytes / seconds_each(context, lambda: torch.mv(matrix, vector), context.seconds / 4))


def product_rate(context: Context) -> float:
    """Operations a second in bfloat16, a multiplication and an addition being two."""
    import torch

    best = 0.0
    for size in (64, 128) if context.tiny else (4096, 8192, 16384):
        a, b = (torch.randn(size, size, device=context.torch).to(torch.bfloat16) for _ in range(2))
        best = max(
            best, 2.0 * size**3 / seconds_each(context, lambda a=a, b=b: torch.mm(a, b.t()), context.seconds / 3)
        )
    return best


def fp8_rate(context: Context) -> float | None:
    """The same of e4m3 with one scale a matrix, bfloat16 out; None where the device cannot."""
    import torch

    if not context.is_gpu or torch.cuda.get_device_capability() < (8, 9):
        return None
    size, one = 8192, torch.ones((), device=context.torch)
    a, b = (torch.randn(size, size, device=context.torch).to(torch.float8_e4m3fn) for _ in range(2))
    run = lambda: torch._scaled_mm(a, b.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16)  # noqa: E731, SLF001
    return 2.0 * size**3 / seconds_each(context, run, context.seconds / 3)


def measure(context: Context) -> Roof:
    """Everything, in a few seconds."""
    return Roof(read_rate(context), product_rate(context), fp8_rate(context))


def run(context: Context) -> None:
    """The part: rows that the others are held against."""
    roof = measure(context)
    context.rows.add("memory read", roof.read_bytes_s / 1e9, "GB/s")
    context.rows.add("product in bfloat16", roof.bfloat16_ops_s / 1e12, "TFLOP/s")
    if roof.fp8_ops_s is None:
        context.rows.skip("product in fp8", "the device has none")
    else:
        context.rows.add("product in fp8", roof.fp8_ops_s / 1e12, "TFLOP/s")
