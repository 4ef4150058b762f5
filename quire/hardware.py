"""What machine this is: the only place that asks the operating system about cores, memory and instruction sets.

Knows: /proc, cgroups, the CPU's flags. Does not know: models, or what the figures are used for.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Hardware:
    """A machine as one process may use it. Memory in bytes; `num_cores` respects affinity and cgroup quota."""

    cpu_model: str
    num_cores: int
    memory_total_bytes: int
    memory_available_bytes: int
    cpu_flags: frozenset[str] = frozenset()


def probe(root: Path = Path("/")) -> Hardware:
    """Ask this machine. `root` lets tests show another machine's /proc and /sys."""
    cpu_model, flags = _cpu(root / "proc/cpuinfo")
    total, available = _memory(root / "proc/meminfo")
    limit, used = _cgroup_memory(root)
    if limit is not None and limit < total:
        total = limit
        available = min(available, max(limit - used, 0))
    return Hardware(cpu_model, _cores(root), total, available, flags)


def _cpu(path: Path) -> tuple[str, frozenset[str]]:
    model, flags = platform.processor() or platform.machine(), frozenset[str]()
    for line in _lines(path):
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            model = value.strip()
        elif name.strip() in ("flags", "Features"):
            flags = frozenset(value.split())
    return model, flags


def _memory(path: Path) -> tuple[int, int]:
    figures = {}
    for line in _lines(path):
        name, _, value = line.partition(":")
        if value.strip().endswith("kB"):
            figures[name] = int(value.split()[0]) * 1024
    if "MemTotal" in figures:
        return figures["MemTotal"], figures.get("MemAvailable", figures["MemTotal"])
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return pages * size, pages * size


def _cgroup_folder(root: Path) -> list[Path]:
    """Folders of our cgroup (v2), innermost first; a limit may stand at any level."""
    base = root / "sys/fs/cgroup"
    inner = next((line[3:].strip("/") for line in _lines(root / "proc/self/cgroup") if line.startswith("0::")), "")
    folder = base / inner
    return [folder, *(parent for parent in folder.parents if parent == base or base in parent.parents)]


def _cgroup_memory(root: Path) -> tuple[int | None, int]:
    """The tightest memory limit over us, in bytes, and what is used under it; None without a limit."""
    tightest: tuple[int | None, int] = (None, 0)
    for folder in _cgroup_folder(root):
        limit = _first_int(folder / "memory.max")
        if limit is not None and (tightest[0] is None or limit < tightest[0]):
            tightest = (limit, _first_int(folder / "memory.current") or 0)
    v1 = root / "sys/fs/cgroup/memory"
    limit = _first_int(v1 / "memory.limit_in_bytes")
    if limit is not None and limit < 2**60 and (tightest[0] is None or limit < tightest[0]):
        tightest = (limit, _first_int(v1 / "memory.usage_in_bytes") or 0)
    return tightest


def _cores(root: Path) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for folder in _cgroup_folder(root):
        fields = (_lines(folder / "cpu.max") or [""])[0].split()
        if len(fields) == 2 and fields[0].isdigit() and int(fields[1]) > 0:
            cores = min(cores, max(1, int(fields[0]) // int(fields[1])))
    return max(1, cores)


def _first_int(path: Path) -> int | None:
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].strip().isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
