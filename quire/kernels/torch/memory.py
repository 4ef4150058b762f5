"""What a torch device is, and how much memory it has.

Knows: torch's names of devices. Does not know: what is kept there.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass

import torch

OUT_OF_MEMORY = torch.OutOfMemoryError


@dataclass(frozen=True, slots=True)
class Use:
    """Bytes of a device: free by its own account, held by us now, held by us at most since `forget`."""

    free_bytes: int
    held_bytes: int
    peak_bytes: int


def open_device(name: str) -> torch.device | None:
    """The device of "cuda", "torch:cpu" or "triton:cpu"; None where this machine has none."""
    if name != "cuda":
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else None


def set_threads(device: torch.device, threads: int) -> None:
    """A CPU computes with so many threads."""
    if device.type == "cpu":
        torch.set_num_threads(threads)


def describe(device: torch.device) -> str:
    """Name and compute capability."""
    if device.type == "cpu":
        return f"torch on {platform.machine()}"
    major, minor = torch.cuda.get_device_capability(device)
    return f"{torch.cuda.get_device_name(device)}, sm_{major}{minor}"


class CudaMemory:
    """What `engine/device_memory.py` asks."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def forget(self) -> None:
        """Give back what torch keeps for later; the peak begins anew."""
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)

    def use(self) -> Use:
        """Blocks that torch has reserved count as held: it gives none back by itself."""
        torch.cuda.synchronize(self._device)
        free, _ = torch.cuda.mem_get_info(self._device)
        held, peak = torch.cuda.memory_reserved(self._device), torch.cuda.max_memory_reserved(self._device)
        return Use(free, held, peak)


def measured(device: torch.device) -> CudaMemory | None:
    """Of a GPU; None for a CPU, whose memory the plan counts."""
    return CudaMemory(device) if device.type == "cuda" else None
