"""What the compiler made of the kernels: nothing compiled for one instruction set can be linked into another.

Reads the object files that a build leaves behind (`make install` or cmake); skips where there are none.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ISAS = ("generic", "avx2", "avx512", "amx")
BASELINE = ("quire_generic", "quire_common", "_cpu")
WIDE_REGISTER = re.compile(r"%[yz]mm\d")
MERGED = re.compile(r"^\s*(?:[0-9a-f]+)?\s*[WVuvw] (?P<name>.+)$")


def objects_of(target: str) -> list[Path]:
    """The newest build's object files of a CMake target."""
    builds = [*ROOT.glob("build/CMakeFiles"), *ROOT.glob("build/*/CMakeFiles")]
    builds = [build for build in builds if not build.parent.name.startswith("sanitize")]  # those share by intention
    with_target = [build / f"{target}.dir" for build in builds if (build / f"{target}.dir").is_dir()]
    if not with_target:
        pytest.skip("no object files: build first (make install)")
    return sorted(max(with_target, key=lambda path: path.stat().st_mtime).rglob("*.o"))


def output_of(tool: str, *arguments: str) -> str:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed (Debian: binutils)")
    return subprocess.run([tool, *arguments], check=True, capture_output=True, text=True).stdout


def merged_symbols(path: Path) -> list[str]:
    """Defined symbols of which the linker keeps one copy, whoever compiled it."""
    found = (MERGED.match(line) for line in output_of("nm", "-C", "--defined-only", str(path)).splitlines())
    return [match["name"] for match in found if match]


@pytest.mark.parametrize("isa", ISAS)
def test_an_instruction_set_shares_no_inline_function_with_another(isa: str) -> None:
    paths = objects_of(f"quire_{isa}")
    assert len(paths) > 5
    shared = [
        f"{path.name}: {name}" for path in paths for name in merged_symbols(path) if f"quire::{isa}::" not in name
    ]
    assert not shared, "\n" + "\n".join(shared)


@pytest.mark.parametrize("target", BASELINE)
def test_what_every_machine_runs_uses_no_wide_registers(target: str) -> None:
    for path in objects_of(target):
        assert not WIDE_REGISTER.search(output_of("objdump", "-d", "--no-show-raw-insn", str(path))), path.name


def test_the_wide_kernels_do_use_them() -> None:
    """The check above can see what it looks for."""
    paths = [path for path in objects_of("quire_avx2") if "gemm_f32" in path.name]
    assert paths
    assert WIDE_REGISTER.search(output_of("objdump", "-d", "--no-show-raw-insn", str(paths[0])))
