"""An engine in a thread of this process, behind the same client: for tests, demos and small tools.

Knows: queues between a thread and an asyncio loop. Does not know: pipes, or what the messages mean.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable

from quire.engine import loop
from quire.engine.client import EngineClient
from quire.engine.engine import Engine
from quire.engine.messages import Failed, FromEngine, Ready, ToEngine
from quire.errors import QuireError


class QueueMailbox:
    """The loop's side: a thread-safe queue in, a callback out."""

    def __init__(self, send: Callable[[FromEngine], None]) -> None:
        self.is_open = True
        self.inbox: queue.SimpleQueue[ToEngine | None] = queue.SimpleQueue()
        self.send = send

    def receive(self, wait: bool) -> list[ToEngine]:
        """All messages in the queue; sleeps for the first if `wait`. None in the queue is the order to leave."""
        messages: list[ToEngine] = []
        while self.is_open and ((wait and not messages) or not self.inbox.empty()):
            message = self.inbox.get()
            if message is None:
                self.is_open = False
            else:
                messages.append(message)
        return messages


class ThreadLink:
    """The client's side of an engine that runs in a thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._mailbox: QueueMailbox | None = None
        self._thread: threading.Thread | None = None

    async def open(self, on_message: Callable[[FromEngine], None], on_lost: Callable[[str], None]) -> None:
        """Start the thread; its messages arrive in the running asyncio loop."""
        here = asyncio.get_running_loop()
        self._mailbox = QueueMailbox(lambda message: _call_soon(here, on_message, message))
        self._thread = threading.Thread(target=self._run, name="quire-engine", daemon=True)
        self._thread.start()
        on_message(Ready(isa="none", kernels=(), load_s=0.0))

    def send(self, message: ToEngine) -> None:
        """Put it in the thread's queue."""
        assert self._mailbox is not None
        self._mailbox.inbox.put(message)

    async def close(self) -> None:
        """Ask the thread to leave and wait for it."""
        if self._mailbox is not None and self._thread is not None:
            self._mailbox.inbox.put(None)
            await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        assert self._mailbox is not None
        try:
            loop.run(self._engine, self._mailbox, time.monotonic)
        except QuireError as problem:
            self._mailbox.send(Failed(type(problem).__name__, problem.message))


def _call_soon(here: asyncio.AbstractEventLoop, call: Callable[[FromEngine], None], message: FromEngine) -> None:
    if not here.is_closed():
        here.call_soon_threadsafe(call, message)


def in_thread(engine: Engine) -> EngineClient:
    """A client of an engine that runs in a thread of this process; `await client.start()` starts it."""
    return EngineClient(ThreadLink(engine))
