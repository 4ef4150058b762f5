"""Which GPUs this process may use, asked of NVIDIA's management library: it is there wherever the driver is, and it
answers in milliseconds, without torch.

Knows: NVML's functions, CUDA_VISIBLE_DEVICES. Does not know: what a GPU is used for.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

LIBRARY = "libnvidia-ml.so.1"
EXTRA = ("torch", "triton")  # what `pip install quire[gpu]` brings
OPTIONAL = ("flashinfer",)  # what a GPU may use besides: `pip install quire[flashinfer]`
_TEXT_BYTES = 96
_FOUND = 0  # NVML_SUCCESS


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One GPU; memory in bytes, `free` of it held by nobody when it was asked."""

    name: str
    memory_total_bytes: int
    memory_free_bytes: int
    driver: str


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def accelerators(
    environ: Mapping[str, str] | None = None, load: Callable[[str], Any] = ctypes.CDLL
) -> tuple[Accelerator, ...]:
    """The GPUs that CUDA shows this process, in its order; none where there is no driver."""
    shown = (os.environ if environ is None else environ).get("CUDA_VISIBLE_DEVICES")
    try:
        library = load(LIBRARY)
    except OSError:
        return ()
    if library.nvmlInit_v2() != _FOUND:
        return ()
    try:
        return tuple(_look(library, handle) for handle in _handles(library, shown))
    finally:
        library.nvmlShutdown()


def missing_extra(find: Callable[[str], Any] = find_spec) -> tuple[str, ...]:
    """Packages of the gpu extra that are not installed; nothing is imported."""
    return tuple(name for name in EXTRA if find(name) is None)


def installed_optional(find: Callable[[str], Any] = find_spec) -> tuple[str, ...]:
    """Packages that may be used besides and are installed; nothing is imported."""
    return tuple(name for name in OPTIONAL if find(name) is not None)


def _handles(library: Any, shown: str | None) -> list[ctypes.c_void_p]:
    """By index or by UUID, as CUDA_VISIBLE_DEVICES names them; as in CUDA, the first wrong name ends the list."""
    if shown is None:
        count = ctypes.c_uint()
        library.nvmlDeviceGetCount_v2(ctypes.byref(count))
        names = [str(index) for index in range(count.value)]
    else:
        names = [name.strip() for name in shown.split(",") if name.strip()]
    handles = []
    for name in names:
        handle = ctypes.c_void_p()
        if name.isdigit():
            code = library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(int(name)), ctypes.byref(handle))
        else:
            code = library.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(handle))
        if code != _FOUND:
            break
        handles.append(handle)
    return handles


def _look(library: Any, handle: ctypes.c_void_p) -> Accelerator:
    name, driver = ctypes.create_string_buffer(_TEXT_BYTES), ctypes.create_string_buffer(_TEXT_BYTES)
    memory = _Memory()
    library.nvmlDeviceGetName(handle, name, _TEXT_BYTES)
    library.nvmlSystemGetDriverVersion(driver, _TEXT_BYTES)
    library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
    return Accelerator(name.value.decode(), memory.total, memory.free, driver.value.decode())
