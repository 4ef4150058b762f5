"""One hostile exchange as data: what is written to a socket and when, and which answers are right.

A corpus is a file of these, a JSON object a line, made before anything is sent: what is replayed is known, and so is
what it was when something broke.

Knows: bytes, pauses, outcomes. Does not know: HTTP, who sends it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

Step = str | float | tuple[str, int]
"""Text of characters below 256, one for each byte; a pause in seconds; or a text so many times over."""

ANSWERED = ("200", "4xx")
HANGS_UP = ("200", "4xx", "closed")  # for what is no HTTP, or no whole request
LEFT = "left"  # the sender went away, as was meant
CLOSED = "closed"  # the server closed without an answer
SILENT = "silent"  # nothing came in time
UNREACHABLE = "unreachable"  # no connection could be had


@dataclass(frozen=True, slots=True)
class Entry:
    """`kind` says who made it. `leave_s`: the sender leaves so long after its last byte, answered or not.

    `right`: outcomes that are right; a status, a class of them (4xx), or one of the words above.
    """

    kind: str
    steps: tuple[Step, ...]
    right: tuple[str, ...] = ANSWERED
    leave_s: float | None = None

    def accepts(self, outcome: str) -> bool:
        """Whether the server did right."""
        if outcome == LEFT:
            return self.leave_s is not None
        return outcome in self.right or (outcome.isdigit() and f"{outcome[0]}xx" in self.right)

    def with_text(self, old: str, new: str) -> Entry:
        """The same with other text of the same length, in whatever is not repeated."""
        steps = tuple([step.replace(old, new) if isinstance(step, str) else step for step in self.steps])
        return Entry(self.kind, steps, self.right, self.leave_s)

    @property
    def num_bytes(self) -> int:
        """How much is sent."""
        return sum(size(step) for step in self.steps)


def size(step: Step) -> int:
    """Bytes of one step."""
    if isinstance(step, str):
        return len(step)
    return len(step[0]) * step[1] if isinstance(step, tuple) else 0


def write(path: Path, entries: Iterable[Entry]) -> int:
    """Write a corpus; how many there are."""
    num = 0
    with path.open("w", encoding="utf-8") as file:
        for each in entries:
            file.write(json.dumps([each.kind, each.steps, each.right, each.leave_s], ensure_ascii=True) + "\n")
            num += 1
    return num


def parse(line: str) -> Entry:
    """One line of a corpus."""
    kind, steps, right, leave_s = json.loads(line)
    told = tuple([(step[0], step[1]) if isinstance(step, list) else step for step in steps])
    return Entry(kind, told, tuple(right), leave_s)


def read(path: Path) -> Iterator[Entry]:
    """The entries of a corpus, read as they are needed."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield parse(line)
