"""Timing ops beside the roof: in turn, several times, medians.

Knows: how a sample is taken, and what the roof is. Does not know: which op a case calls.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from statistics import median

import numpy as np

from quire.ops import roof
from quire.ops.device import Device

SAMPLE_S = 0.012  # a sample lasts about so long, or one call
STREAM_BYTES = 256 * 2**20  # unless told otherwise
"""What is streamed from DRAM is at least so large in all: several times the last cache of most machines."""
CACHED_BYTES = 256 * 2**10  # a thread's share of a buffer that its own L2 holds
CACHED_READS = 100
ROOF_ROUNDS = 20_000


@dataclass(frozen=True, slots=True)
class Case:
    """One op at one shape. `run(i)` is the i-th call; what it reads changes with i where it must come from DRAM.

    `num_bytes` are read and written by a call, `num_ops` multiplications and additions in it, `dtype` the kind of its
    multiply (one of `roof.DTYPES`); `cached` marks an op whose operands lie in the cache in a model's step too.
    """

    op: str
    detail: str
    rows: int
    format: str
    num_bytes: int
    num_ops: int
    dtype: str
    run: Callable[[int], object]
    cached: bool = False


@dataclass(slots=True)
class Roof:
    """What the machine can do at most, measured again in every round."""

    device: Device
    stream_bytes: int
    read_s: list[float] = field(default_factory=list)
    cached_s: list[float] = field(default_factory=list)
    ops_per_s: dict[str, list[float]] = field(default_factory=lambda: {dtype: [] for dtype in roof.DTYPES})
    _data_B: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self._data_B = np.ones(self.stream_bytes, np.uint8)

    def sample(self) -> None:
        """Measure everything once; of several ways to read the fastest counts."""
        self.read_s.append(min(seconds(partial(self._read, ahead)) for ahead in roof.PREFETCH_BYTES))
        small_B = self._data_B[: CACHED_BYTES * self.device.threads]
        self.cached_s.append(seconds(partial(self._read_often, small_B)) / CACHED_READS)
        for dtype, rates in self.ops_per_s.items():
            roof.multiply(self.device, dtype, ROOF_ROUNDS // 10)
            num_ops = roof.multiply(self.device, dtype, 1)
            rates.append(num_ops * ROOF_ROUNDS / seconds(partial(self._multiply, dtype)))

    def _read(self, ahead: int) -> None:
        roof.read_all(self.device, self._data_B, ahead)

    def _read_often(self, small_B: np.ndarray) -> None:
        for _ in range(CACHED_READS):
            roof.read_all(self.device, small_B)

    def _multiply(self, dtype: str) -> None:
        roof.multiply(self.device, dtype, ROOF_ROUNDS)

    @property
    def read(self) -> float:
        """Bytes a second from DRAM."""
        return self._data_B.nbytes / median(self.read_s)

    @property
    def cached_read(self) -> float:
        """Bytes a second from the caches of the cores."""
        return CACHED_BYTES * self.device.threads / median(self.cached_s)

    def peak(self, dtype: str) -> float:
        """Operations a second of the multiply for `dtype`."""
        return median(self.ops_per_s[dtype])

    def floor_s(self, case: Case) -> tuple[float, str]:
        """The least time of one call, and what bounds it."""
        read = self.cached_read if case.cached else self.read
        memory_s, compute_s = case.num_bytes / read, case.num_ops / self.peak(case.dtype)
        if memory_s >= compute_s:
            return memory_s, "L2" if case.cached else "DRAM"
        return compute_s, case.dtype


@dataclass(frozen=True, slots=True)
class Timed:
    """A case, the median seconds of a call, and its share of the roof (1 is the roof)."""

    case: Case
    seconds: float
    share: float
    bound: str


def time_cases(cases: Sequence[Case], roofs: Roof, repeat: int) -> list[Timed]:
    """Every case `repeat` times, in turn with the others and with the roof."""
    calls = [_calls_per_sample(case) for case in cases]
    numbers = [count(1) for _ in cases]
    samples: list[list[float]] = [[] for _ in cases]
    for _ in range(repeat):
        roofs.sample()
        for place, case in enumerate(cases):
            samples[place].append(_sample(case, numbers[place], calls[place]))
    timed = []
    for case, seconds_each in zip(cases, samples, strict=True):
        floor_s, bound = roofs.floor_s(case)
        timed.append(Timed(case, median(seconds_each), floor_s / median(seconds_each), bound))
    return timed


def seconds(call: Callable[[], object]) -> float:
    """How long `call()` takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _calls_per_sample(case: Case) -> int:
    case.run(0)  # grows scratch, touches pages
    return max(1, min(5000, int(SAMPLE_S / max(seconds(lambda: case.run(1)), 1e-7))))


def _sample(case: Case, numbers: count[int], calls: int) -> float:
    run = case.run
    each = [next(numbers) for _ in range(calls)]
    start = time.perf_counter()
    for number in each:
        run(number)
    return (time.perf_counter() - start) / calls
