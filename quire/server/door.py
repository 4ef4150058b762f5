"""How many requests are inside, from the moment they are let in to the end of their answers.

Knows: a count. Does not know: what a request is, who counts as waiting.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from quire.errors import Overloaded


@dataclass(slots=True)
class Door:
    """Counts engine requests, those still being translated included: they all come in before the engine sees one."""

    num_inside: int = 0

    @contextmanager
    def visit(self) -> Iterator[Visit]:
        """One HTTP request's stay; what it asked for is given back at its end."""
        visit = Visit(self)
        try:
            yield visit
        finally:
            self.num_inside -= visit.num


@dataclass(slots=True)
class Visit:
    """One HTTP request's share of what is inside."""

    door: Door
    num: int = 0

    def ask(self, num: int, limit: int) -> None:
        """Let `num` more in, or raise `Overloaded` if more than `limit` would be inside."""
        if self.door.num_inside + num > limit:
            raise Overloaded(
                "too many requests are waiting",
                got=f"{self.door.num_inside} inside, {num} more",
                allowed=f"{limit} running or waiting",
                hint="Try again later.",
            )
        self.door.num_inside += num
        self.num += num
