"""Probes of what the machine can do at most: reading memory, and the multiply that the kernels are made of.

Knows: their contract. Does not know: clocks; who calls them measures how long they take.
"""

from __future__ import annotations

from typing import Any

from quire.kernels.cpu.native import _cpu
from quire.ops.device import Device

DTYPES = ("float32", "bfloat16", "int8")
PREFETCH_BYTES = (0, 4096)
"""Distances of prefetching to try in `read_all`: which is fastest differs by machine."""

_MULTIPLIES = {
    ("amx", "float32"): "vfmadd, 16 lanes",
    ("amx", "bfloat16"): "tdpbf16ps, 16 x 16 sums of 32",
    ("amx", "int8"): "tdpbsud, 16 x 16 sums of 64",
    ("avx512", "float32"): "vfmadd, 16 lanes",
    ("avx512", "bfloat16"): "vdpbf16ps, 32 lanes",
    ("avx512", "int8"): "vpdpbusd, 64 lanes",
    ("avx2", "float32"): "vfmadd, 8 lanes",
    ("avx2", "bfloat16"): "vfmadd, 8 lanes",
    ("avx2", "int8"): "vpmaddwd and vpaddd, 16 lanes",
    ("generic", "float32"): "multiply and add, 4 lanes",
    ("generic", "bfloat16"): "multiply and add, 4 lanes",
    ("generic", "int8"): "multiply and add, 8 lanes",
}


def read_all(device: Device, data_B: Any, ahead: int = 0) -> None:
    """Reads every byte of `data_B` (uint8) once, by all threads, prefetching `ahead` bytes before each (0: not).

    Raises TypeError for another type or layout, ValueError for a negative `ahead`.
    """
    _cpu.roof_read(device.cpu, data_B, ahead)


def multiply(device: Device, dtype: str, rounds: int) -> int:
    """Repeats the multiply of `dtype`'s kernels in registers, on all threads; returns the operations done.

    A multiplication and its addition are two operations. Raises ValueError for another dtype or no rounds.
    """
    return _cpu.roof_multiply(device.cpu, dtype, rounds)


def instruction(device: Device, dtype: str) -> str:
    """What `multiply` repeats on this device."""
    return _MULTIPLIES[device.isa, dtype]
