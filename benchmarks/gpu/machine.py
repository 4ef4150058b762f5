"""What machine the suite stands on, and what it lacks.

Knows: the driver, Python packages, git's files. Does not know: what is measured. torch is imported in functions alone.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("torch", "numpy")
USED = ("torch", "triton", "numpy", "tokenizers", "safetensors", "transformers", "flashinfer-python")


class NotReady(Exception):
    """This machine cannot run the suite; the text says what is missing."""


def missing(device: str) -> list[str]:
    """What must be there and is not, as sentences."""
    found = []
    if sys.version_info < (3, 11):  # noqa: UP036 - it is not installed, so nobody has looked
        found.append(f"Python 3.11 or newer; this is {platform.python_version()}. Try: make gpu PYTHON=python3.12")
    for name in NEEDED + (("triton",) if device != "torch:cpu" else ()):
        if importlib.util.find_spec(name) is None:
            found.append(f"the package {name}, in {sys.executable}. Try: make gpu PYTHON=/path/to/a/python/that/has/it")
    if device == "cuda" and not found:
        found += _missing_gpu()
    return found


def _missing_gpu() -> list[str]:
    from quire.accelerator import accelerators

    if not accelerators():
        return ["an NVIDIA GPU: the driver's library (libnvidia-ml.so.1) shows none. Does nvidia-smi list one?"]
    import torch

    if not torch.cuda.is_available():
        return [f"a torch that sees the GPU: this is torch {torch.__version__}, built for CUDA {torch.version.cuda}"]
    return []


def warnings() -> list[str]:
    """What is not there and may be needed by Triton, which builds a small launcher with the machine's compiler."""
    found = []
    if not any(shutil.which(name) for name in (os.environ.get("CC", "cc"), "cc", "gcc", "clang")):
        found.append("no C compiler (cc, gcc, clang): Triton may not be able to launch its kernels")
    elif not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        found.append("no Python.h beside this Python: Triton may not be able to launch its kernels")
    return found


def describe(device: str) -> dict[str, Any]:
    """The device, its driver, versions of what is used, the commit; all that a figure depends on."""
    from quire.accelerator import accelerators

    gpus = accelerators()
    first = gpus[0] if gpus and device == "cuda" else None
    return {
        "device": first.name if first else f"{device} on {platform.machine()}",
        "memory_gib": round(first.memory_total_bytes / 2**30, 1) if first else None,
        "driver": first.driver if first else None,
        "cuda": _cuda_version(),
        "python": platform.python_version(),
        "versions": {name: told for name in USED if (told := _version(name))},
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "commit": commit(ROOT),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cuda_version() -> str | None:
    import torch

    return torch.version.cuda


def commit(root: Path) -> str:
    """Of the source tree, with "+" where files differ from it; "unknown" without git or its folder."""
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return told.stdout.strip() or "unknown"
