"""The HTTP server's life: from the first request to the order to stop, or to the engine's death.

Knows: uvicorn, signals, the engine's client. Does not know: routes, models.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Generator

import uvicorn
from starlette.types import ASGIApp

from quire.engine.client import EngineClient
from quire.engine.garbage import Sweeper, settle_in
from quire.server.serve import uvicorn_config

INTERRUPTED = 130
DIED = 1
WATCH_S = 1.0  # how often the engine is looked at
FAREWELL_S = 2.0  # how long a server without an engine still tells its clients so, before it leaves


class Server(uvicorn.Server):
    """uvicorn without its signal handlers, which would end the process by the signal and skip our own ending."""

    def __init__(self, config: uvicorn.Config, on_listening: Callable[[], None]) -> None:
        super().__init__(config)
        self.exit_code = 0
        self.on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so: who reads the address can connect."""
        await super().startup(sockets)
        if self.started:
            self.on_listening()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Nothing: `listen` listens to signals."""
        yield

    def stop(self, number: signal.Signals) -> None:
        """Take no more connections, let open answers end; a second order does not wait for them."""
        self.exit_code = INTERRUPTED if number == signal.SIGINT else 0
        self.force_exit = self.should_exit
        self.should_exit = True


async def listen(app: ASGIApp, listener: socket.socket, client: EngineClient, on_listening: Callable[[], None]) -> int:
    """Answer requests until SIGINT (exit code 130), SIGTERM (0), or the end of the engine (1)."""
    server = Server(uvicorn_config(app), on_listening)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, server.stop, number)
    watching = asyncio.create_task(_watch(server, client))
    await server.serve([listener])
    watching.cancel()
    return server.exit_code


async def _watch(server: Server, client: EngineClient) -> None:
    """A server whose engine has gone says so for a while and ends, so that whoever keeps it can start it anew."""
    settle_in()
    sweeper, now = Sweeper(), asyncio.get_running_loop().time
    while client.is_ready:
        await asyncio.sleep(WATCH_S)
        sweeper.look(client.num_open == 0, now())
    print("quire: the engine process has gone away; this server ends too.", file=sys.stderr, flush=True)
    await asyncio.sleep(FAREWELL_S)
    server.exit_code = DIED
    server.should_exit = True
