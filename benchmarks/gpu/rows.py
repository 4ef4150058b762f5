"""What the suite finds out: rows of a table, lines of a file, one JSON document.

Knows: targets and verdicts. Does not know: what is measured, torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SKIPPED, TOLD, MET, MISSED = "skipped", "told", "met", "MISSED"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `target` is the least that is right, or with `most` the most; None where it is only told.

    A row without a figure (`got` None) was skipped, or with `failed` went wrong; `why` says why.
    """

    part: str
    name: str
    got: float | None = None
    unit: str = ""
    target: float | None = None
    most: bool = False
    why: str = ""
    failed: bool = False

    @property
    def verdict(self) -> str:
        """met, MISSED, told (without a target) or skipped."""
        if self.failed:
            return MISSED
        if self.got is None:
            return SKIPPED
        if self.target is None:
            return TOLD
        if math.isnan(self.got):
            return MISSED
        return MET if (self.got <= self.target if self.most else self.got >= self.target) else MISSED


class Writer:
    """Rows of one part, each written the moment it is known: a part that crashes has told what it had."""

    def __init__(self, part: str, path: Path | None, say: Callable[[str], None], judged: bool) -> None:
        self.part, self.rows = part, list[Row]()
        self._path, self._say, self._judged = path, say, judged

    def add(
        self, name: str, got: float, unit: str = "", target: float | None = None, most: bool = False, why: str = ""
    ) -> None:
        """A figure; its target counts only on a GPU and at full size."""
        self.put(Row(self.part, name, float(got), unit, target if self._judged else None, most, why))

    def check(self, name: str, num_wrong: int, num_all: int, why: str = "") -> None:
        """So many of so many comparisons went wrong: none may, at any size, on any device."""
        self.put(Row(self.part, name, float(num_wrong), f"wrong of {num_all}", 0.0, True, why))

    def skip(self, name: str, why: str) -> None:
        """What could not be measured, and why."""
        self.put(Row(self.part, name, why=why))

    def fail(self, name: str, why: str) -> None:
        """What went wrong altogether."""
        self.put(Row(self.part, name, why=why, failed=True))

    def put(self, row: Row) -> None:
        """Any row, as it is."""
        self.rows.append(row)
        self._say(line(row))
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(asdict(row)) + "\n")


def read_rows(path: Path) -> list[Row]:
    """Those that a part has written; a last line that was cut off is left out."""
    rows = []
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(Row(**json.loads(text)))
        except ValueError:
            break
    return rows


def line(row: Row) -> str:
    """A row of the table."""
    got = "" if row.got is None else f"{number(row.got)} {row.unit}".strip()
    target = "" if row.target is None else f"{'at most' if row.most else 'at least'} {number(row.target)}"
    return f"{row.part:<12} {row.name:<52} {got:>22} {target:>16}  {row.verdict}{': ' + row.why if row.why else ''}"


def number(value: float) -> str:
    """Three or four places that matter."""
    return f"{value:.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


def told(problem: Exception) -> str:
    """An exception in a line."""
    said = str(problem).strip().splitlines()
    return f"{type(problem).__name__}{': ' + said[0] if said else ''}"


def table(rows: Iterable[Row]) -> str:
    """All rows under their headings."""
    head = f"{'part':<12} {'name':<52} {'got':>22} {'target':>16}  verdict"
    return "\n".join([head, "-" * len(head), *map(line, rows)])


def document(machine: dict[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """The JSON that is kept: the machine, and every row with its verdict."""
    judged = [row.verdict for row in rows]
    return {
        "machine": machine,
        "met": judged.count(MET),
        "missed": judged.count(MISSED),
        "skipped": judged.count(SKIPPED),
        "rows": [{**asdict(row), "verdict": row.verdict} for row in rows],
    }


def merged(before: dict[str, Any] | None, machine: dict[str, Any], rows: Sequence[Row]) -> list[Row]:
    """`rows`, and those of other parts from an earlier run of the same commit on the same machine."""
    if before is None or before.get("machine") != machine:
        return list(rows)
    fresh = {row.part for row in rows}
    held = [Row(**{key: value for key, value in each.items() if key != "verdict"}) for each in before["rows"]]
    return [row for row in held if row.part not in fresh] + list(rows)
