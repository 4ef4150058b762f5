"""How many cores and how much memory a process may use, read from files of other machines.

Knows: what cpusets and cgroups of both versions look like. Does not know: this machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from quire.hardware import probe


def machine(root: Path, cgroup: str, **files: str) -> Path:
    """A root folder with /proc/self/cgroup and files under /sys/fs/cgroup (a double underscore is a slash)."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    (root / "proc/meminfo").write_text("MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n")
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("DOT", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_a_quota_the_affinity_counts(tmp_path: Path) -> None:
    assert probe(machine(tmp_path, "0::/\n", cpuDOTmax="max 100000\n"), affinity=6).num_cores == 6


@pytest.mark.parametrize(
    ("limit", "cores"),
    [
        ("400000 100000", 4),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("9900000 100000", 8),
        ("max 100000", 8),
        ("0 0", 8),
    ],
)
def test_a_quota_of_version_2_is_rounded_down_but_leaves_one(tmp_path: Path, limit: str, cores: int) -> None:
    assert probe(machine(tmp_path, "0::/app\n", app__cpuDOTmax=f"{limit}\n"), affinity=8).num_cores == cores


def test_the_tightest_quota_above_us_counts(tmp_path: Path) -> None:
    limits = {"cpuDOTmax": "600000 100000", "a__cpuDOTmax": "300000 100000", "a__b__cpuDOTmax": "500000 100000"}
    assert probe(machine(tmp_path, "0::/a/b\n", **limits), affinity=8).num_cores == 3


@pytest.mark.parametrize(("quota", "cores"), [("350000", 3), ("-1", 8), ("20000", 1)])
@pytest.mark.parametrize("controllers", ["cpu", "cpu,cpuacct"])
def test_a_quota_of_version_1(tmp_path: Path, controllers: str, quota: str, cores: int) -> None:
    limits = {"cpu__box__cpuDOTcfs_quota_us": quota, "cpu__box__cpuDOTcfs_period_us": "100000"}
    root = machine(tmp_path, f"3:memory:/\n2:{controllers}:/box\n0::/\n", **limits)
    assert probe(root, affinity=8).num_cores == cores


def test_a_container_of_version_1_finds_its_quota_at_the_mounts_root(tmp_path: Path) -> None:
    limits = {"cpu__cpuDOTcfs_quota_us": "200000", "cpu__cpuDOTcfs_period_us": "100000"}
    assert probe(machine(tmp_path, "2:cpu:/docker/0123456789\n", **limits), affinity=8).num_cores == 2


@pytest.mark.parametrize("text", ["", "max\n", "100000\n", "many 100000\n", "-100000 100000\n"])
def test_a_file_of_another_shape_is_no_quota(tmp_path: Path, text: str) -> None:
    assert probe(machine(tmp_path, "0::/\n", cpuDOTmax=text), affinity=8).num_cores == 8


def test_memory_limits_of_version_1_at_any_level(tmp_path: Path) -> None:
    files = {
        "memory__memoryDOTlimit_in_bytes": str(2**63 - 4096),
        "memory__box__memoryDOTlimit_in_bytes": str(4 * 2**30),
        "memory__box__memoryDOTusage_in_bytes": str(2**30),
    }
    found = probe(machine(tmp_path, "5:memory:/box\n", **files), affinity=1)
    assert (found.memory_total_bytes, found.memory_available_bytes) == (4 * 2**30, 3 * 2**30)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system has no affinity masks")
def test_a_process_bound_to_one_core_plans_one_thread() -> None:
    core = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{core}}}); from quire.hardware import probe; print(probe().num_cores)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "1"
