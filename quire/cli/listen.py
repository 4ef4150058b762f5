"""The HTTP server's life: from the first request to the order to stop.

    SIGTERM   leave with grace                      a second one ends what is open
    SIGINT    leave at once, but cleanly            a second one ends what is open
    SIGUSR2   start a successor, hand it the socket

Knows: uvicorn, signals, the engine's client. Does not know: routes, models, what leaving consists of.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import partial
from ssl import SSLContext

import uvicorn
from starlette.types import ASGIApp

from quire.cli.handover import Handover
from quire.cli.passing import Taking, pass_on
from quire.cli.successor import tell_ready
from quire.engine.client import EngineClient
from quire.engine.garbage import Sweeper, settle_in
from quire.observe.lines import Lines
from quire.server.leaving import AFTER_HANDOVER, Leaving, Patience, quick
from quire.server.lifecycle import Lifecycle
from quire.server.protocol import Bounds
from quire.server.serve import uvicorn_config

INTERRUPTED = 130
WATCH_S = 1.0


@dataclass(frozen=True, slots=True)
class Stay:
    """What a server's comings and goings depend on. `handover` is how its successor is started; through `ready_fd` is
    told that we answer."""

    lifecycle: Lifecycle
    patience: Patience
    handover: Handover
    is_inherited: bool = False
    ready_fd: int | None = None
    bounds: Bounds = field(default_factory=Bounds)


class Server(uvicorn.Server):
    """uvicorn without its signal handlers, which would end the process by the signal and skip our own ending."""

    def __init__(self, config: uvicorn.Config, on_listening: Callable[[], None], stay: Stay) -> None:
        super().__init__(config)
        self.exit_code = 0
        self.on_listening = on_listening
        self._stay = stay
        self._leaving = Leaving(stay.lifecycle, say, stay.is_inherited)
        self._handing_over: asyncio.Task[None] | None = None
        self._taking: Taking | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so: who reads the address can connect."""
        await super().startup(sockets)
        if self.started:
            self._stay.lifecycle.serve()
            self.on_listening()
            channel = None if self._stay.ready_fd is None else tell_ready(self._stay.ready_fd)
            self._taking = None if channel is None else Taking(channel, self._connection)

    def _connection(self) -> asyncio.Protocol:
        protocol = self.config.http_protocol_class
        return protocol(config=self.config, server_state=self.server_state, app_state={})  # type: ignore[call-arg]

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Nothing: `listen` listens to signals."""
        yield

    def stop(self, number: signal.Signals) -> None:
        """Leave; a second order does not wait for open answers."""
        if self.should_exit and not self._stay.lifecycle.is_ready:
            self._leaving.hurry()
            return
        self.exit_code = INTERRUPTED if number == signal.SIGINT else 0
        patience = self._stay.patience
        self._leaving.order(number.name, quick(patience) if number == signal.SIGINT else patience)
        self.should_exit = True

    def restart(self, listener: socket.socket) -> None:
        """Start a successor, and leave once it answers."""
        if self.should_exit:
            say("restart  refused: this server is leaving already")
        elif self._handing_over is not None and not self._handing_over.done():
            say("restart  refused: a successor is starting already")
        else:
            self._handing_over = asyncio.create_task(self._hand_over(listener))

    async def _hand_over(self, listener: socket.socket) -> None:
        successor = await self._stay.handover.run(listener, say)
        if successor is not None and not self.should_exit:
            why = f"SIGUSR2, process {successor.process.pid} answers"
            self._leaving.order(why, AFTER_HANDOVER, partial(pass_on, successor.channel))
            self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Leave, phase by phase. A successor that does not answer yet is not wanted any more."""
        if self._handing_over is not None:
            self._handing_over.cancel()
            await asyncio.gather(self._handing_over, return_exceptions=True)
        if not self._stay.lifecycle.is_leaving:
            self._leaving.order("no signal", quick(self._stay.patience))
        await self._leaving.run(self, sockets or [])
        if self._taking is not None:
            self._taking.close()


async def listen(
    app: ASGIApp,
    listener: socket.socket,
    client: EngineClient,
    on_listening: Callable[[], None],
    stay: Stay,
    tls: SSLContext | None = None,
) -> int:
    """Answer requests until SIGINT (exit code 130), SIGTERM or a successor (0)."""
    server = Server(uvicorn_config(app, tls=tls, bounds=stay.bounds), on_listening, stay)
    here = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        here.add_signal_handler(number, server.stop, number)
    here.add_signal_handler(signal.SIGUSR2, server.restart, listener)
    watching = asyncio.create_task(_watch(client))
    await server.serve([listener])
    watching.cancel()
    return server.exit_code


def say(line: str) -> None:
    """One line for whoever looks after the server."""
    Lines(sys.stderr).tell(line)


async def _watch(client: EngineClient) -> None:
    """Collect garbage while nobody waits for it."""
    settle_in()
    sweeper, now = Sweeper(), asyncio.get_running_loop().time
    while True:
        await asyncio.sleep(WATCH_S)
        sweeper.look(client.num_open == 0, now())
