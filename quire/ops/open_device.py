"""A device by its name, and what belongs to it: the cache and the scratch memory.

Knows: the kinds of devices. Does not know: who chose one, or what is computed. torch is loaded here, when a device asks
for it, and nowhere else.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from quire.ops.arena import Arena
from quire.ops.device import Device
from quire.ops.kv_cache import KVCache, blocks_ahead


def open_device(kind: str, threads: int, dtype: str = "bfloat16", batch_invariant: bool = False) -> Device:
    """`kind` is "cpu", "cuda", or for tests "torch:cpu" or "triton:cpu"; `dtype` that of a torch device's activations.

    Raises `InvalidSetting` where there is no such device.
    """
    if kind == "cpu":
        return Device(threads)
    device: Device = import_module("quire.ops.torch_device").TorchDevice(kind, threads, dtype, batch_invariant)
    return device


def make_kv_cache(
    device: Device,
    num_layers: int,
    num_blocks: int,
    block_size: int,
    num_kv_heads: int,
    head_dim: int,
    dtype: str,
) -> KVCache:
    """The device's cache of these sizes; on the CPU one that looks ahead."""
    sizes = (num_layers, num_blocks, block_size, num_kv_heads, head_dim, dtype)
    if device.kind == "cpu":
        cache = KVCache(*sizes)
        cache.keep_ahead(blocks_ahead(cache))
        return cache
    cache = import_module("quire.ops.torch_kv_cache").TorchKVCache(device, *sizes)
    return cache


def make_arena(device: Device, poison: bool = False) -> Any:
    """The device's scratch memory."""
    if device.kind == "cpu":
        return Arena(poison)
    torch_device: Any = device
    return import_module("quire.kernels.torch.arena").TorchArena(torch_device.torch, torch_device.dtype, poison)
