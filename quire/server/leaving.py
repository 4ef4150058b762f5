"""How a server leaves: phase by phase, and nobody is cut off who could still be answered.

    grace      not ready, everything still answered; each answer is the last of its connection
    draining   no new connections; open answers go on, connections that say nothing are closed
    ending     the rest is told to ask again, and gets a moment to hear it

Knows: uvicorn's connections and tasks, the lifecycle, times. Does not know: signals (`cli/listen.py`), routes.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import cast

import uvicorn

from quire.server.lifecycle import Lifecycle, Phase
from quire.server.protocol import HttpProtocol

PassOn = Callable[[HttpProtocol], bool]

LOOK_S = 0.02
BACKLOG_S = 0.05  # how long connections that the kernel has already made are still taken
LINGER_S = 1.0  # how long a connection may say nothing before it is closed: a request may be on its way
FAREWELL_S = 2.0  # how long those who were told to ask again may take to hear it
QUICK_S = 1.0  # how long a person at a terminal waits for open answers


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds for each phase; `linger_s` is for connections without a request."""

    grace_s: float
    drain_s: float
    linger_s: float = LINGER_S


def quick(patience: Patience) -> Patience:
    """For somebody who waits at a terminal."""
    return Patience(0.0, min(QUICK_S, patience.drain_s), 0.0)


AFTER_HANDOVER = Patience(0.0, inf)  # nobody waits for this process: its answers may take what they take


class Leaving:
    """One server's way out. Orders may come at any time: a later one changes the times, `hurry` ends all waiting."""

    def __init__(self, lifecycle: Lifecycle, say: Callable[[str], None], is_shared: bool = False) -> None:
        """`is_shared`: somebody else holds the listening socket too, and keeps it when we close ours."""
        self._lifecycle, self._say, self._is_shared = lifecycle, say, is_shared
        self._patience = AFTER_HANDOVER
        self._pass_on: PassOn | None = None
        self._began_s = self._drains_since_s = 0.0
        self._is_hurried = self._is_over = False

    def order(self, why: str, patience: Patience, pass_on: PassOn | None = None) -> None:
        """Begin to leave, or go on to leave in another way. Call it in the loop that serves.

        `pass_on` gives an idle connection to a successor, who answers at our address; False if he cannot have it.
        """
        has_successor = pass_on is not None
        self._lifecycle.drain(has_successor)
        self._pass_on = pass_on or self._pass_on
        self._patience = patience
        self._began_s = asyncio.get_running_loop().time()
        if self._drains_since_s:  # new connections are not taken any more: the new bound counts from now
            self._drains_since_s = self._began_s
        grace = f"new requests are answered for {patience.grace_s:g} s more" if patience.grace_s else "no new requests"
        state = "the successor takes new requests" if has_successor else f"not ready; {grace}"
        self._say(f"leaving  {why}: {state}, {requests(self._lifecycle.num_open)} open")

    def hurry(self) -> None:
        """End what is open now; said again, without a word."""
        self._is_over = self._is_hurried
        self._is_hurried = True

    async def run(self, server: uvicorn.Server, sockets: Sequence[socket.socket]) -> None:
        """Every phase, one after the other; nobody listens any more when it is over."""
        await self._until(lambda: self._now() >= self._began_s + self._patience.grace_s)
        await self._stop_listening(server, sockets)
        await self._drain(server)
        await self._end(server)

    async def _stop_listening(self, server: uvicorn.Server, sockets: Sequence[socket.socket]) -> None:
        """A socket that others hold too is let go. One of our own would reset what the kernel has accepted for us: it
        first takes no more, then we take what is there."""
        if not self._is_shared and not self._lifecycle.has_successor:
            for listener in sockets:
                listener.listen(0)
            await asyncio.sleep(BACKLOG_S)
        for acceptor in server.servers:
            acceptor.close()
        for listener in sockets:
            listener.close()

    async def _drain(self, server: uvicorn.Server) -> None:
        self._drains_since_s = self._now()
        if num_open := self._lifecycle.num_open:
            bound = self._patience.drain_s
            limit = "" if bound == inf else f", at most {bound:g} s more"
            self._say(f"draining no new connections; {requests(num_open)} open{limit}")
        await self._until(
            lambda: self._is_empty(server) or self._now() >= self._drains_since_s + self._patience.drain_s
        )

    async def _end(self, server: uvicorn.Server) -> None:
        num_ended = self._lifecycle.end()
        if num_ended:
            self._say(f"ending   {requests(num_ended)} could not be finished and were told to ask again")
        self._is_hurried = self._is_over
        end_s = self._now() + FAREWELL_S
        await self._until(lambda: self._is_empty(server) or self._now() >= end_s)
        for connection in connections(server):
            connection.transport.abort()
        for task in server.server_state.tasks:
            task.cancel()
        self._say("ended    every answer was whole" if not num_ended else f"ended    {requests(num_ended)} cut short")

    def _is_empty(self, server: uvicorn.Server) -> bool:
        """Whether nobody is connected any more. Who says nothing goes to the successor, or is closed after a while."""
        now_s = self._now()
        linger_s = self._patience.linger_s if self._lifecycle.phase == Phase.DRAINING else 0.0
        for connection in connections(server):
            if not connection.is_idle or (self._pass_on is not None and self._pass_on(connection)):
                continue
            if now_s >= max(connection.idle_since_s, self._began_s) + linger_s:
                connection.transport.close()
        return not server.server_state.connections and not server.server_state.tasks

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while not self._is_hurried and not is_so():
            await asyncio.sleep(LOOK_S)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def connections(server: uvicorn.Server) -> Sequence[HttpProtocol]:
    """Those that are open now."""
    return [cast("HttpProtocol", connection) for connection in server.server_state.connections]


def requests(number: int) -> str:
    """`1 request`, `2 requests`."""
    return f"{number} request" if number == 1 else f"{number} requests"
