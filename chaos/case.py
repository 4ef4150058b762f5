"""One thing that may happen to a server, and what whoever looks after it must then see.

Knows: names, verdicts. Does not know: what is done to the server.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
LOOK_S = 0.02


class Failed(Exception):
    """What had to be seen was not; the message says what was."""


class Skipped(Exception):
    """The case cannot be made here; the message says why."""


@dataclass(frozen=True, slots=True)
class Case:
    """`run` does it, looks, and returns what was seen in a few words. Raises `Failed` or `Skipped`.

    `must`: what has to be seen. `waits_for`: what is not built yet and makes it fail, if anything.
    """

    name: str
    must: str
    run: Callable[[], str]
    waits_for: str | None = None


def check(condition: object, what: str) -> None:
    """Raise `Failed` unless it is so."""
    if not condition:
        raise Failed(what)


def soon(look: Callable[[], T], within_s: float, what: str) -> tuple[T, float]:
    """The first true answer of `look`, and after how many seconds it came. Raises `Failed` if it never does."""
    begin = time.monotonic()
    while True:
        found, seconds = look(), time.monotonic() - begin
        if found:
            return found, seconds
        if seconds > within_s:
            raise Failed(f"{what}: not within {within_s:g} s")
        time.sleep(LOOK_S)
