"""Launches recorded once, to be ordered again with one call.

    CUDA     a CUDA graph: what is recorded is not run; a replay reads and writes the very memory of the recording
    CPU      what is recorded is kept and called again: the same order of things, so that it is tested without a GPU

Knows: CUDA graphs. Does not know: what is recorded, or when that has become stale.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch

FAILURES = (RuntimeError,)  # torch's and CUDA's own, out of memory included


class Recording(Protocol):
    """Something that can be ordered again."""

    def replay(self) -> None:
        """All of it, in order; nobody waits."""
        ...


class Recorder(Protocol):
    """Makes recordings."""

    def record(self, run: Callable[[], None]) -> Recording:
        """What `run` launches. It must ask the device nothing, and what it touches must stay where it is."""
        ...


class Again:
    """A recording for a device that computes as it is told."""

    def __init__(self, run: Callable[[], None]) -> None:
        self.replay = run


class PlainRecorder:
    """Of a CPU."""

    def record(self, run: Callable[[], None]) -> Recording:
        """`run` itself, not called yet."""
        return Again(run)


class CudaRecorder:
    """Of a GPU. Its graphs share one pool of scratch memory: they run one after the other, and what one of them leaves
    there nobody reads."""

    def __init__(self) -> None:
        self._pool: Any = None

    def record(self, run: Callable[[], None]) -> Recording:
        """Waits for the device, then takes some tens of milliseconds."""
        graph = torch.cuda.CUDAGraph()
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            run()
        return graph


def recorder_of(device: torch.device) -> Recorder:
    """The recorder of a CPU or a CUDA device."""
    return CudaRecorder() if device.type == "cuda" else PlainRecorder()
