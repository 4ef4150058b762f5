"""`make chaos`: everything that may happen to a server in one night, one case after another, and a table at the end.

    python -m chaos.night                     all cases
    python -m chaos.night --only stderr       those whose name holds this
    python -m chaos.night --list              what each must show

A case that waits for something not built yet may fail; it is told as `not yet`. Exit code 1 if any other does.

Knows: cases and verdicts. Does not know: what is done in them.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from chaos import cases_checkpoints, cases_connections, cases_files, cases_processes, cases_resources
from chaos.case import Case, Failed, Skipped
from chaos.served import DidNotStart, end_in_order

CASES: tuple[Case, ...] = (
    *cases_processes.CASES,
    *cases_connections.CASES,
    *cases_files.CASES,
    *cases_checkpoints.CASES,
    *cases_resources.CASES,
)
MOST_S = 120  # of one case, on a slow machine


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a case went."""

    name: str
    must: str
    verdict: str
    seen: str
    seconds: float


class _TooLong(Exception):
    pass


def judge(case: Case, most_s: int = MOST_S) -> Verdict:
    """Run one case."""
    begin = time.monotonic()
    verdict, seen = _outcome(case, most_s)
    if verdict == "FAILED" and case.waits_for is not None:
        verdict, seen = "not yet", f"waits for {case.waits_for}: {seen}"
    return Verdict(case.name, case.must, verdict, " ".join(seen.split()), round(time.monotonic() - begin, 1))


def _outcome(case: Case, most_s: int) -> tuple[str, str]:
    def expire(number: int, frame: object) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(most_s)
    try:
        return "met", case.run()
    except Skipped as reason:
        return "skipped", str(reason)
    except Failed as problem:
        return "FAILED", str(problem)
    except _TooLong:
        return "FAILED", f"no end after {most_s} s"
    except (DidNotStart, RuntimeError, OSError) as problem:
        return "FAILED", f"{type(problem).__name__}: {problem}"[:400]
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def show(verdicts: Sequence[Verdict]) -> None:
    """The table."""
    width = max(len(each.name) for each in verdicts)
    print(
        "\n"
        + "\n".join(f"{each.verdict:8} {each.name:{width}} {each.seconds:6.1f} s  {each.seen}" for each in verdicts)
    )
    counts = {name: sum(each.verdict == name for each in verdicts) for name in ("met", "not yet", "skipped", "FAILED")}
    print(", ".join(f"{num} {name}" for name, num in counts.items()))


def main() -> int:
    """1 if a case failed."""
    end_in_order()
    parser = argparse.ArgumentParser(prog="python -m chaos.night", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", default=[], help="Cases whose name holds this; several times.")
    parser.add_argument("--list", action="store_true", help="Say what each must show, and do nothing.")
    parser.add_argument("--json", action="store_true", help="One JSON object on stdout.")
    args = parser.parse_args()
    cases = [case for case in CASES if not args.only or any(part in case.name for part in args.only)]
    if args.list:
        print("\n".join(f"{case.name:36} {case.must}" for case in cases))
        return 0
    verdicts: list[Verdict] = []
    for case in cases:
        verdicts.append(judge(case))
        last = verdicts[-1]
        print(f"{last.verdict:8} {last.name}: {last.seen[:300]}", file=sys.stderr, flush=True)
    if args.json:
        print(json.dumps({"cases": [asdict(each) for each in verdicts]}))
    elif verdicts:
        show(verdicts)
    return int(any(each.verdict == "FAILED" for each in verdicts) or not verdicts)


if __name__ == "__main__":
    sys.exit(main())
