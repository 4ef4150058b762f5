"""One part in a process of its own: `python -m benchmarks.gpu.one PART --device cuda --rows FILE`.

Knows: the parts by their names. Does not know: what they measure, who reads the rows.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
from pathlib import Path

from benchmarks.gpu.context import DEVICES, Context
from benchmarks.gpu.rows import Writer, told

PARTS = ("ops", "draws", "models", "kernels", "roof", "attention", "decode", "throughput", "start", "baseline")
GROUPS = {"correctness": PARTS[:4], "speed": PARTS[4:], "all": PARTS}
SECONDS, TINY_SECONDS = 1.0, 0.02


def run_part(part: str, context: Context) -> None:
    """Measure; whatever is raised becomes a row."""
    try:
        importlib.import_module(f"benchmarks.gpu.{part}").run(context)
    except Exception as problem:  # noqa: BLE001 - the other parts are to be run all the same
        traceback.print_exc(file=sys.stderr)
        context.rows.fail(part, told(problem))


def main() -> int:
    """0, whatever was found: the rows tell."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--device", choices=DEVICES, default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--rows", type=Path)
    options = parser.parse_args()
    judged = options.device == "cuda" and not options.tiny

    def say(text: str) -> None:
        print(text, flush=True)

    rows = Writer(options.part, options.rows, say, judged)
    seconds = TINY_SECONDS if options.tiny else SECONDS
    run_part(options.part, Context(options.device, options.tiny, seconds, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
