"""Every Triton kernel of an 8B model's steps is compiled on this machine and launched once.

Knows: `benchmarks/triton_compile.py`, which lists the launches. Does not know: what comes out.
"""

from __future__ import annotations

import importlib.util
import time
from typing import Any

from benchmarks.gpu.context import Context
from benchmarks.gpu.machine import ROOT
from benchmarks.gpu.rows import told


def listed() -> Any:
    """The script as a module: it is no package's."""
    place = importlib.util.spec_from_file_location("triton_compile", ROOT / "benchmarks" / "triton_compile.py")
    assert place is not None
    assert place.loader is not None
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


def run(context: Context) -> None:
    """The part."""
    if not context.is_gpu:
        context.rows.skip("kernels of 8B steps", "they are compiled for a GPU alone; see benchmarks/triton_compile.py")
        return
    launch_all(context, listed().steps(context.tiny))


def launch_all(context: Context, steps: Any) -> None:
    """`steps` are pairs of a name and a launch, made where tensors lie on the device."""
    import torch

    wrong, count, begin, slowest = [], 0, time.perf_counter(), (0.0, "")
    with context.torch:
        for what, launch in steps:
            count += 1
            first = time.perf_counter()
            try:
                launch()
                context.synchronize()
            except Exception as problem:  # noqa: BLE001 - told in its row
                wrong.append(f"{what}: {told(problem)}")
                if isinstance(problem, getattr(torch, "AcceleratorError", ())):
                    break  # the device is lost to this process
            slowest = max(slowest, (time.perf_counter() - first, what))
    context.rows.check("kernels of 8B steps, compiled and launched", len(wrong), count, "; ".join(wrong[:3]))
    why = f"{slowest[1]} took {slowest[0]:.1f} s"
    context.rows.add("all of them, first use", time.perf_counter() - begin, "s", why=why)
