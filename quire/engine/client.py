"""The asking side of an engine, for one asyncio loop: submit a request, read its deltas, abort by leaving.

Knows: requests, deltas and the link that carries them. Does not know: the scheduler, HTTP or text.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from quire import errors
from quire.engine.messages import (
    Abort,
    Failed,
    FromEngine,
    Loading,
    Prepare,
    Prepared,
    Ready,
    Refused,
    StepReport,
    Submit,
    ToEngine,
)
from quire.engine.wire import rebuild
from quire.events import StepStats
from quire.request import Constraint, Request
from quire.step import Delta

MAX_PREPARED = 256  # grammars that need not be asked for again


class Link(Protocol):
    """What carries messages to an engine and back."""

    async def open(self, on_message: Callable[[FromEngine], None], on_lost: Callable[[str], None]) -> None:
        """Begin to call `on_message` in the running asyncio loop; `on_lost` once if the engine goes away."""
        ...

    def send(self, message: ToEngine) -> None:
        """Hand a message over; never blocks."""
        ...

    async def close(self) -> None:
        """Let the engine leave, and wait until it has."""
        ...


class EngineClient:
    """Many requests at once over one link. Every stream ends: with its last delta, or with a typed error."""

    def __init__(self, link: Link) -> None:
        self.on_stats: Callable[[StepStats], None] | None = None
        self.on_loading: Callable[[int, int], None] | None = None
        self.ready: Ready | None = None
        self._link = link
        self._streams: dict[str, asyncio.Queue[Delta | errors.QuireError]] = {}
        self._failure: errors.QuireError | None = None
        self._settled = asyncio.Event()
        self._preparing: dict[Constraint, asyncio.Future[None]] = {}
        self._prepared: OrderedDict[Constraint, None] = OrderedDict()
        self._questions: dict[str, Constraint] = {}
        self._num_questions = 0

    @property
    def is_ready(self) -> bool:
        """True while a request would be answered."""
        return self.ready is not None and self._failure is None

    @property
    def num_open(self) -> int:
        """Requests whose streams have not ended."""
        return len(self._streams)

    async def start(self) -> Ready:
        """Wait until the engine serves; raises what stopped it from starting."""
        await self._link.open(self._on_message, self._on_lost)
        await self._settled.wait()
        if self._failure is not None:
            raise self._failure
        assert self.ready is not None
        return self.ready

    async def stream(self, request: Request) -> AsyncIterator[Delta]:
        """Deltas of all samples, until each has its `finish`. Leaving early aborts the request in the engine.

        Raises `EngineDead`, or the error with which the engine refused the request.
        """
        if self._failure is not None or self.ready is None:
            raise errors.EngineDead("the engine is not serving", hint="Try again when /health answers 200.")
        if request.id in self._streams:
            raise errors.InternalError("two open requests share an id", got=request.id)
        news: asyncio.Queue[Delta | errors.QuireError] = asyncio.Queue()
        self._streams[request.id] = news
        num_running = request.params.n
        try:
            self._link.send(Submit(request))
            while num_running:
                delta = await news.get()
                if isinstance(delta, errors.QuireError):
                    num_running = 0
                    raise delta
                num_running -= delta.finish is not None
                yield delta
        finally:
            del self._streams[request.id]
            if num_running:
                self.abort(request.id)

    async def prepare(self, constraint: Constraint) -> None:
        """Wait until the engine has compiled this grammar. Raises why it cannot.

        Who asks for what others wait for already waits with them.
        """
        if self._failure is not None or self.ready is None:
            raise errors.EngineDead("the engine is not serving", hint="Try again when /health answers 200.")
        if constraint in self._prepared:
            self._prepared.move_to_end(constraint)
            return
        answer = self._preparing.get(constraint)
        if answer is None:
            answer = self._preparing[constraint] = asyncio.get_running_loop().create_future()
            self._num_questions += 1
            self._questions[str(self._num_questions)] = constraint
            self._link.send(Prepare(str(self._num_questions), constraint))
        await asyncio.shield(answer)

    def abort(self, request_id: str, index: int | None = None, served: bool = False) -> None:
        """Tell the engine that nobody waits for this request, or for one sample of it; it ends with `abort`.

        `served`: whoever asked has all that he wanted, and nothing was computed in vain.
        """
        if self._failure is None:
            self._link.send(Abort(request_id, index, served))

    async def close(self) -> None:
        """End every stream and the engine."""
        self._fail(errors.EngineDead("the server is shutting down"))
        await self._link.close()

    def _on_message(self, message: FromEngine) -> None:
        if isinstance(message, StepReport):
            self._on_report(message)
        elif isinstance(message, Refused):
            self._tell(message.request_id, _refusal(message))
        elif isinstance(message, Ready):
            self.ready = message
            self._settled.set()
        elif isinstance(message, Failed):
            self._fail(rebuild(message.kind, message.message))
        elif isinstance(message, Loading) and self.on_loading is not None:
            self.on_loading(message.done_bytes, message.total_bytes)
        elif isinstance(message, Prepared):
            self._on_prepared(message)

    def _on_prepared(self, message: Prepared) -> None:
        constraint = self._questions.pop(message.id)
        answer = self._preparing.pop(constraint)
        if not message.kind:
            self._prepared[constraint] = None
            if len(self._prepared) > MAX_PREPARED:
                self._prepared.popitem(last=False)
            answer.set_result(None)
            return
        answer.set_exception(rebuild(message.kind, message.message))
        answer.exception()  # whoever asked may have left

    def _on_report(self, report: StepReport) -> None:
        for delta in report.deltas:
            self._tell(delta.request_id, delta)
        if self.on_stats is not None:
            self.on_stats(report.stats)

    def _tell(self, request_id: str, news: Delta | errors.QuireError) -> None:
        stream = self._streams.get(request_id)
        if stream is not None:
            stream.put_nowait(news)

    def _on_lost(self, how: str) -> None:
        self._fail(errors.EngineDead("the engine process has gone away", got=how, hint="See the server's log."))

    def _fail(self, failure: errors.QuireError) -> None:
        if self._failure is None:
            self._failure = failure
            for stream in self._streams.values():
                stream.put_nowait(failure)
            for answer in self._preparing.values():
                answer.set_exception(failure)
                answer.exception()  # whoever asked may have left
            self._preparing.clear()
            self._settled.set()


def _refusal(message: Refused) -> errors.QuireError:
    error = rebuild(message.kind, message.message, message.param)
    if isinstance(error, errors.Overloaded) and message.retry_after_s is not None:
        error.retry_after_s, error.estimate_s = message.retry_after_s, message.estimate_s
    return error
