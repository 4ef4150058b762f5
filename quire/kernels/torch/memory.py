"""What a torch device is, and how much memory it has.

Knows: torch's names of devices. Does not know: what is kept there.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass

import torch

OUT_OF_MEMORY = torch.OutOfMemoryError


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Bytes: of the device, free by its own account, held by tensors now, and held by tensors at most."""

    total_bytes: int
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


def device_memory(device: torch.device) -> DeviceMemory | None:
    """Of a GPU; None for a CPU, whose memory the plan counts."""
    if device.type == "cpu":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return DeviceMemory(total, free, torch.cuda.memory_allocated(device), torch.cuda.max_memory_reserved(device))


def release(device: torch.device) -> None:
    """Give back what torch keeps for later, and forget the peak."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
