"""Sums of the weights' bytes, compared slice by slice with those at start: a bit that flipped shows, whoever reads it.

    sum = the slice's 64-bit words, added modulo 2^64      a single flip changes it by +-2^k, never by nothing

Two flips can only hide each other in the same bit of two words of one slice, one up and one down. Also seen is what no
prompt may touch for days: rows of the embedding for rare tokens, positions far out in the rotary tables.

Knows: the arrays that a model holds. Does not know: what they are for, when they are looked at, who is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]

SLICE_BYTES = 8 * 2**20  # 0.6 ms at 13 GB/s: no step is late for it


class WeightSums:
    """All arrays under `model`, in slices, and what each summed to at start."""

    name = "weights"

    def __init__(self, model: object) -> None:
        self._slices = [each for name, words in arrays_of(model) for each in _slices(name, words)]
        self._golden: list[int] = []
        self._next = 0

    def begin(self) -> None:
        """What the bytes are now is right."""
        self._golden = [_sum(words) for _, words in self._slices]

    @property
    def num_parts(self) -> int:
        """Slices."""
        return len(self._slices)

    @property
    def num_bytes(self) -> int:
        """Bytes that are looked at."""
        return sum([words.nbytes for _, words in self._slices])

    def examine(self) -> str | None:
        """What is wrong with the next slice, None if nothing is; the same slice comes next if something is."""
        name, words = self._slices[self._next]
        if _sum(words) != self._golden[self._next]:
            return f"the bytes of {name} are not what they were at start"
        self._next = (self._next + 1) % len(self._slices)
        return None


def arrays_of(holder: object, name: str = "model") -> Iterator[tuple[str, Words]]:
    """(name, its 8-byte words) of every array and packed weight that `holder` holds, each once."""
    seen: set[int] = set()
    for path, array in _found(holder, name):
        data = array.reshape(-1).view(np.uint8)
        if data.ctypes.data in seen or data.size < 8:
            continue
        seen.add(data.ctypes.data)
        yield path, data[: data.size // 8 * 8].view(np.uint64)


def _found(holder: Any, name: str) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    if isinstance(holder, np.ndarray):
        if holder.flags.c_contiguous:
            yield name, holder
    elif hasattr(holder, "buffer"):
        yield name, holder.buffer()
    elif isinstance(holder, tuple):
        for number, each in enumerate(holder):
            yield from _found(each, f"{name}[{number}]")
    elif is_dataclass(holder):
        for field in fields(holder):
            yield from _found(getattr(holder, field.name), f"{name}.{field.name}")


def _slices(name: str, words: Words) -> Iterator[tuple[str, Words]]:
    step = SLICE_BYTES // 8
    for first in range(0, words.size, step):
        yield name, words[first : first + step]


def _sum(words: Words) -> int:
    return int(np.add.reduce(words))  # wraps around
