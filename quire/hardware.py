"""What machine this is: the only place that asks the operating system about cores, memory and instruction sets.

Knows: /proc, cgroups, the CPU's flags. Does not know: models, or what the figures are used for.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from quire.accelerator import Accelerator, accelerators, installed_optional, missing_extra

NO_LIMIT_BYTES = 2**60  # cgroup v1 says "no limit" with a number near 2**63


@dataclass(frozen=True, slots=True)
class Hardware:
    """A machine as one process may use it. Memory in bytes; `num_cores` respects affinity (cpusets too) and quotas.

    `missing_extra` are packages of the gpu extra that are not installed, `optional_extra` those that are installed and
    may be used besides.
    """

    cpu_model: str
    num_cores: int
    memory_total_bytes: int
    memory_available_bytes: int
    accelerators: tuple[Accelerator, ...] = ()
    missing_extra: tuple[str, ...] = ()
    optional_extra: tuple[str, ...] = ()


def probe(root: Path = Path("/"), affinity: int | None = None) -> Hardware:
    """Ask this machine. `root` lets tests show another one's /proc and /sys, `affinity` its number of allowed cores."""
    cpu_model = _cpu(root / "proc/cpuinfo")
    total, available = _memory(root / "proc/meminfo")
    limit, used = _cgroup_memory(root)
    if limit is not None and limit < total:
        total = limit
        available = min(available, max(limit - used, 0))
    cores = _cores(root, affinity or _affinity())
    gpus, missing = accelerators(), missing_extra()
    return Hardware(cpu_model, cores, total, available, gpus, missing, installed_optional())


def _cpu(path: Path) -> str:
    for line in _lines(path):
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


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


def _cgroup_folders(root: Path, controller: str = "") -> list[Path]:
    """Folders of our cgroup, innermost first: a limit may stand at any level. v2, or v1's hierarchy of `controller`.

    A container may see its own folder as the mount's root while /proc names the host's path: the root is listed too.
    """
    base, inner = root / "sys/fs/cgroup" / controller, ""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controller in controllers.split(","):  # v2's line names no controller
            inner = path.strip("/")
    folder = base / inner
    return [folder, *(parent for parent in folder.parents if parent == base or base in parent.parents)]


def _cgroup_memory(root: Path) -> tuple[int | None, int]:
    """The tightest memory limit over us, in bytes, and what is used under it; None without a limit."""
    tightest: tuple[int | None, int] = (None, 0)
    for folder in _cgroup_folders(root):
        limit = _first_int(folder / "memory.max")
        if limit is not None and (tightest[0] is None or limit < tightest[0]):
            tightest = (limit, _first_int(folder / "memory.current") or 0)
    for folder in _cgroup_folders(root, "memory"):
        limit = _first_int(folder / "memory.limit_in_bytes")
        if limit is not None and limit < NO_LIMIT_BYTES and (tightest[0] is None or limit < tightest[0]):
            tightest = (limit, _first_int(folder / "memory.usage_in_bytes") or 0)
    return tightest


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cores(root: Path, affinity: int) -> int:
    """Cores that threads may keep busy. A quota of 2.5 cores is two: a third thread would have all three paused."""
    quotas = [_quota_v2(folder) for folder in _cgroup_folders(root)]
    quotas += [_quota_v1(folder) for folder in _cgroup_folders(root, "cpu")]
    return max(1, min([affinity, *(int(quota) for quota in quotas if quota is not None)]))


def _quota_v2(folder: Path) -> float | None:
    fields = (_lines(folder / "cpu.max") or [""])[0].split()
    if len(fields) != 2 or not fields[0].isdigit() or not fields[1].isdigit() or int(fields[1]) == 0:
        return None
    return int(fields[0]) / int(fields[1])


def _quota_v1(folder: Path) -> float | None:
    quota, period = _first_int(folder / "cpu.cfs_quota_us"), _first_int(folder / "cpu.cfs_period_us")
    return quota / period if quota and period else None


def _first_int(path: Path) -> int | None:
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].strip().isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
