"""Check and measure the GPU backend on a machine that has one.

    make gpu                                        all parts, each a process of its own of under nine minutes
    make gpu PART=correctness                       ops, draws, models, kernels; `speed` is the others
    make gpu PART="decode throughput"               these
    python3 -m benchmarks.gpu --device torch:cpu --tiny      all parts at a size that a CPU does in a minute

It needs Python, torch, triton and NumPy, nothing that has to be built or fetched. A table comes last; the same as JSON
goes to `benchmarks/results/`, beside what other parts found there on the same commit and machine. Exit code 0: nothing
missed its target; 1: something did; 2: this machine cannot run the suite, with what is missing.

Knows: parts as processes, their rows. Does not know: what they measure.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu import machine
from benchmarks.gpu.context import DEVICES
from benchmarks.gpu.one import GROUPS, PARTS
from benchmarks.gpu.rows import MISSED, Row, document, merged, read_rows, table

LIMIT_S = 530.0
RESULTS = machine.ROOT / "benchmarks" / "results"


def chosen(names: list[str]) -> list[str]:
    """Parts in their order; a group stands for all of its own. Raises `NotReady` for an unknown name."""
    unknown = [name for name in names if name not in PARTS and name not in GROUPS]
    if unknown:
        raise machine.NotReady(f"there is no part {', '.join(unknown)}; there are {', '.join((*GROUPS, *PARTS))}")
    wanted = {part for name in names or ["all"] for part in GROUPS.get(name, (name,))}
    return [part for part in PARTS if part in wanted]


def run_part(part: str, options: argparse.Namespace, folder: Path) -> list[Row]:
    """The rows of one part; if its process dies or takes too long, those that it had written and one that says so."""
    path = folder / f"{part}.jsonl"
    command = [sys.executable, "-m", "benchmarks.gpu.one", part, "--device", options.device, "--rows", str(path)]
    command += ["--tiny"] if options.tiny else []
    begin = time.perf_counter()
    try:
        code = subprocess.run(command, cwd=machine.ROOT, timeout=options.limit, check=False).returncode
        problem = "" if code == 0 else f"its process ended with {code}"
    except subprocess.TimeoutExpired:
        problem = f"it took more than {options.limit:.0f} s"
    rows = read_rows(path)
    if problem:
        rows.append(Row(part, part, why=problem, failed=True))
    print(f"-- {part}: {time.perf_counter() - begin:.0f} s\n", flush=True)
    return rows


def file_of(where: dict[str, Any], options: argparse.Namespace) -> Path:
    """benchmarks/results/<date>-<device>.json, or what was asked for."""
    if options.json is not None:
        return Path(options.json)
    name = re.sub(r"[^a-z0-9]+", "-", where["device"].lower()).strip("-")
    return RESULTS / f"{datetime.date.today().isoformat()}-{name}{'-tiny' if options.tiny else ''}.json"


def keep(path: Path, where: dict[str, Any], rows: list[Row]) -> list[Row]:
    """Write what is known so far; the rows in the file now."""
    before = json.loads(path.read_text()) if path.exists() else None
    every = sorted(merged(before, where, rows), key=lambda row: PARTS.index(row.part))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document(where, every), indent=1) + "\n")
    return every


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options of a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join((*GROUPS, *PARTS))} (default: all)")
    parser.add_argument("--device", choices=DEVICES, default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a size for a CPU; targets do not count")
    parser.add_argument("--json", metavar="FILE", help="where the result goes instead")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds that a part may take (default: 530)")
    return parser.parse_args(arguments)


def main() -> int:
    """Look, run, tell."""
    options = parse()
    try:
        parts = chosen(options.parts)
        problems = machine.missing(options.device)
        if problems:
            raise machine.NotReady("this machine cannot run the GPU suite. Missing:\n  " + "\n  ".join(problems))
    except machine.NotReady as problem:
        print(problem, file=sys.stderr)
        return 2
    where = machine.describe(options.device)
    print(json.dumps(where))
    for warning in machine.warnings():
        print(f"warning: {warning}", flush=True)
    path, rows = file_of(where, options), list[Row]()
    with tempfile.TemporaryDirectory(prefix="quire-gpu-") as folder:
        for part in parts:
            rows += run_part(part, options, Path(folder))
            every = keep(path, where, rows)
    print(table(every))
    print(f"kept in {path}")
    return 1 if any(row.verdict == MISSED for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
