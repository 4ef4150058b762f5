"""Where a server is in its life, and how what it still does is ended when its time is up.

    starting  -->  serving  -->  draining  -->  ending
                   ready         not ready      the rest is ended with an error that invites to ask again

Knows: phases, and the tasks that must not outlive the last one. Does not know: signals, sockets, HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import cast

from quire.errors import ShuttingDown


class Phase(Enum):
    """A server's phases, in the only order there is."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    ENDING = "ending"


class Lifecycle:
    """One server's phase. It never goes back; an order that comes twice changes nothing."""

    def __init__(self) -> None:
        self.phase = Phase.STARTING
        self.has_successor = False
        self._mortal: set[asyncio.Task[object]] = set()
        self._told: set[asyncio.Task[object]] = set()

    @property
    def is_leaving(self) -> bool:
        """True from the order to stop on: every answer says that its connection is the last one."""
        return self.phase in (Phase.DRAINING, Phase.ENDING)

    @property
    def is_ready(self) -> bool:
        """False from the order to stop on, unless a successor answers at the same address.

        A server that still starts does not answer anybody, so of `starting` nothing is said here.
        """
        return self.phase != Phase.ENDING and (not self.is_leaving or self.has_successor)

    @property
    def num_open(self) -> int:
        """Requests that `end` would end."""
        return len(self._mortal)

    def serve(self) -> None:
        """The server answers."""
        if self.phase == Phase.STARTING:
            self.phase = Phase.SERVING

    def drain(self, has_successor: bool = False) -> None:
        """The order to stop has come; what is open goes on."""
        if self.phase != Phase.ENDING:
            self.phase = Phase.DRAINING
            self.has_successor = has_successor

    def end(self) -> int:
        """End what is still open; how many requests that were. Call it in the loop that serves them."""
        self.phase = Phase.ENDING
        ended, self._mortal = self._mortal, set()
        self._told |= ended
        for task in ended:
            task.cancel()
        return len(ended)

    @contextmanager
    def mortal(self) -> Iterator[None]:
        """What the running task does in here raises `ShuttingDown` when the server ends, or has ended. Not nested."""
        if self.phase == Phase.ENDING:
            raise _shutting_down()
        task = cast("asyncio.Task[object]", asyncio.current_task())
        self._mortal.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if task in self._told and task.uncancel() == 0:  # else somebody else wants it to end, too
                raise _shutting_down() from None
            raise
        finally:
            self._mortal.discard(task)
            self._told.discard(task)


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("the server is shutting down", hint="Ask again: another server, or this one once it is back.")
