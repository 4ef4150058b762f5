"""The asking side of an engine, for one asyncio loop: submit a request, read its deltas, abort by leaving.

    engine up            requests are sent as they come
    engine lost          streams stay open, new requests wait with them; whoever keeps the engine brings another one
    another one is up    what is left of each is asked for, in the order in which they came

Knows: requests, deltas and the link that carries them. Does not know: the scheduler, HTTP or text, or why an engine was
lost (`supervisor.py`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from typing import Protocol

from quire import errors
from quire.engine.messages import (
    Abort,
    Failed,
    FromEngine,
    Loading,
    Prepared,
    Ready,
    Refused,
    StepReport,
    Submit,
    ToEngine,
)
from quire.engine.open_request import OpenRequest
from quire.engine.preparing import Preparing
from quire.engine.wire import rebuild
from quire.events import EngineLoss, Examined, StepStats
from quire.request import Constraint, Request
from quire.step import Delta

GRAMMAR_RETRY_S, MOST_GRAMMAR_TRIES = 0.5, 120
LOG_HINT = "See the server's log."


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


class Keeper(Protocol):
    """Whoever brings another engine when one is lost."""

    @property
    def trouble(self) -> str | None:
        """Why the engine does not get on, though its link is up; None while it does."""
        ...

    def begin(self) -> None:
        """The first engine serves."""
        ...

    def lost(self, how: str) -> None:
        """The engine is gone; `how` as far as its link can tell."""
        ...

    async def close(self) -> None:
        """Bring no more."""
        ...

    async def how_it_ended(self) -> tuple[str, str]:
        """What became of the engine, once its link is gone, and what the operator can do, if anything is known."""
        ...


class EngineClient:
    """Many requests at once over one link. Every stream ends: with its last delta, or with a typed error.

    Without a `keeper` all streams end with the engine. `ailment` says why its answers are not to be
    trusted, if so; `examined` is what it found last, by check, as it looked at itself.
    """

    def __init__(self, link: Link) -> None:
        self.on_stats: Callable[[StepStats], None] | None = None
        self.on_loading: Callable[[int, int], None] | None = None
        self.on_loss: Callable[[EngineLoss], None] | None = None
        self.on_examined: Callable[[Examined], None] | None = None
        self.on_recall: Callable[[int], None] | None = None
        self.ready: Ready | None = None
        self.keeper: Keeper | None = None
        self.ailment: str | None = None
        self.examined: dict[str, Examined] = {}
        self.last_words: str | None = None
        self.open: dict[str, OpenRequest] = {}
        self._link = link
        self._is_up = self._lets_in = self._is_closed = False
        self._failure: errors.QuireError | None = None
        self._lost_before: errors.QuireError | None = None  # it served
        self._settled = asyncio.Event()
        self._preparing = Preparing(self._send)

    @property
    def is_ready(self) -> bool:
        """True while a request would be computed at once."""
        return self.why_not_ready is None

    @property
    def why_not_ready(self) -> str | None:
        """What keeps requests from being computed now; None if nothing does."""
        if self._failure is not None:
            return self._failure.message
        if self.ready is None:
            return "the engine is loading"
        if not self._lets_in:
            return "the engine is being started again" if not self._is_up else "requests are being tried one by one"
        return self.ailment or (None if self.keeper is None else self.keeper.trouble)

    @property
    def num_open(self) -> int:
        """Requests whose streams have not ended."""
        return len(self.open)

    async def start(self) -> Ready:
        """Wait until the engine serves; raises what stopped it from starting."""
        try:
            ready = await self.attach(self._link)
        except errors.EngineDead:
            if self.keeper is None:
                raise
            how, remedy = await self.keeper.how_it_ended()
            hint = f"{remedy}. {LOG_HINT}" if remedy else LOG_HINT
            raise errors.EngineDead("the engine process went away as it started", got=how, hint=hint) from None
        self.let_in()
        if self.keeper is not None:
            self.keeper.begin()
        return ready

    async def attach(self, link: Link) -> Ready:
        """Talk over `link` from now on, and wait until its engine serves. Raises what stops it from starting."""
        self._link, self.last_words, self._lost_before = link, None, None
        self._settled.clear()
        await link.open(partial(self._on_message, link), partial(self._on_lost, link))
        await self._settled.wait()
        if self._lost_before is not None or self.ready is None:
            raise self._lost_before or errors.EngineDead("the engine is not serving")
        return self.ready

    async def stream(self, request: Request) -> AsyncIterator[Delta]:
        """Deltas of all samples, until each has its `finish`. Leaving early aborts the request in the engine.

        Raises `EngineDead`, or the error with which the engine refused the request.
        """
        self._check_serving()
        if request.id in self.open:
            raise errors.InternalError("two open requests share an id", got=request.id)
        opened = self.open[request.id] = OpenRequest(request, came_s=time.monotonic())
        num_running = request.params.n
        try:
            if self._lets_in:
                self.submit([request.id])
            while num_running:
                delta = await opened.news.get()
                if isinstance(delta, errors.QuireError):
                    num_running = 0
                    raise delta
                num_running -= delta.finish is not None
                yield delta
        finally:
            del self.open[request.id]
            if num_running:
                self.abort(request.id)

    async def prepare(self, constraint: Constraint) -> None:
        """Wait until the engine has compiled this grammar. Raises why it cannot.

        Who asks for what others wait for already waits with them.
        """
        self._check_serving()
        await self._preparing.wait_for(constraint)

    def abort(self, request_id: str, index: int | None = None, served: bool = False) -> None:
        """Tell the engine that nobody waits for this request, or for one sample of it; it ends with `abort`.

        `served`: whoever asked has all that he wanted, and nothing was computed in vain.
        """
        if (opened := self.open.get(request_id)) is not None:
            opened.give_up(index)
            if not opened.is_sent:
                opened.end_given_up()
        self._send(Abort(request_id, index, served))

    async def close(self) -> None:
        """End every stream and the engine."""
        self._is_closed = True
        if self.keeper is not None:
            await self.keeper.close()
        self.fail(errors.EngineDead("the server is shutting down"))
        await self._link.close()

    def submit(self, names: Iterable[str]) -> None:
        """Ask the engine for these, those of whom some was told for the rest; each as soon as its grammar is there."""
        for name in names:
            opened = self.open.get(name)
            if opened is None or opened.is_sent or opened.is_over:
                continue
            constraint = opened.request.constraint
            if constraint is None or not opened.was_sent or constraint in self._preparing:
                self._submit(opened)
            else:
                opened.is_wanted = True
                self._preparing.then(constraint, partial(self._on_grammar, opened))

    def let_in(self) -> None:
        """Ask for everyone who waits, and from now on for everyone who comes."""
        self._lets_in, self._failure = True, None
        self.submit(list(self.open))

    def fail(self, failure: errors.QuireError, names: Iterable[str] | None = None) -> None:
        """End all streams and refuse new ones, until `let_in`; or end only these."""
        if names is not None:
            for name in names:
                if (opened := self.open.get(name)) is not None:
                    opened.fail(failure)
            return
        if self._failure is None or self._is_closed:
            self._failure = failure
            self._lets_in = False
            for opened in self.open.values():
                opened.fail(failure)
            self._preparing.fail(failure)
            self._settled.set()

    def _check_serving(self) -> None:
        if self._failure is not None or self.ready is None:
            why = None if self._failure is None else self._failure.message
            raise errors.EngineDead("the engine is not serving", got=why, hint="Try again when /readyz answers 200.")

    def _submit(self, opened: OpenRequest) -> None:
        request = opened.to_send()
        opened.is_sent, opened.was_sent, opened.is_wanted = True, True, False
        opened.num_tries = 0
        opened.sent_s = time.monotonic()
        self._send(Submit(request))

    def _on_grammar(self, opened: OpenRequest, error: errors.QuireError | None) -> None:
        if self.open.get(opened.request.id) is not opened or not opened.is_wanted or opened.is_over:
            return
        if error is None:
            self._submit(opened)
        elif isinstance(error, errors.Overloaded) and opened.num_tries < MOST_GRAMMAR_TRIES:
            opened.num_tries += 1  # it was served before, and its reader waits: not too much for us, only much at once
            asyncio.get_running_loop().call_later(GRAMMAR_RETRY_S, self._try_again, opened)
        else:
            opened.fail(error)

    def _try_again(self, opened: OpenRequest) -> None:
        if opened.is_wanted and self.open.get(opened.request.id) is opened:
            self.submit([opened.request.id])

    def _send(self, message: ToEngine) -> None:
        if self._is_up:
            self._link.send(message)

    def _on_message(self, link: Link, message: FromEngine) -> None:
        if link is not self._link:
            return  # the last words of an engine that was given up
        if isinstance(message, StepReport):
            self._on_report(message)
        elif isinstance(message, Refused):
            self.fail(_refusal(message), [message.request_id])
        elif isinstance(message, Ready):
            self._on_ready(message)
        elif isinstance(message, Failed):
            self._on_failed(rebuild(message.kind, message.message))
        elif isinstance(message, Loading) and self.on_loading is not None:
            self.on_loading(message.done_bytes, message.total_bytes)
        elif isinstance(message, Prepared):
            self._preparing.answer(message)
        elif isinstance(message, Examined):
            self._on_examined(message)

    def _on_examined(self, message: Examined) -> None:
        self.ailment = message.ailment or self.ailment
        self.examined[message.check] = message
        if self.on_examined is not None:
            self.on_examined(message)

    def _on_ready(self, message: Ready) -> None:
        self.ready, self.ailment = message, None
        self._is_up = True
        self._preparing.ask_again()
        self._settled.set()

    def _on_failed(self, error: errors.QuireError) -> None:
        """An engine's last words: what stopped it from starting, or what it died of."""
        self.last_words = error.message
        if not self._settled.is_set():
            self._lost_before = error
            self._settled.set()
        elif self.keeper is None:
            self.fail(error)

    def _on_report(self, report: StepReport) -> None:
        requests = self.open
        recalled = []
        for delta in report.deltas:
            opened = requests.get(delta.request_id)
            if opened is not None and opened.hear(delta):
                recalled.append(opened)
        if recalled:
            self._recall(dict.fromkeys(recalled))
        if self.on_stats is not None:
            self.on_stats(report.stats)

    def _recall(self, requests: Iterable[OpenRequest]) -> None:
        """The process that kept their grammars was lost: the engine ends them, and is then asked for what is left."""
        self._preparing.forget()
        back = [opened for opened in requests if opened.has_come_back]
        for opened in requests:
            if opened in back:
                opened.begin_anew()
            elif opened.is_sent:
                opened.is_sent = False
                self._send(Abort(opened.request.id))
        if back and self.on_recall is not None:
            self.on_recall(len(back))
        self.submit([opened.request.id for opened in back])

    def _on_lost(self, link: Link, how: str) -> None:
        if link is not self._link or self._is_closed:
            return
        error = errors.EngineDead("the engine process has gone away", got=how, hint=LOG_HINT)
        self._is_up = self._lets_in = False
        if not self._settled.is_set():
            self._lost_before = error
            self._settled.set()
        if self.keeper is None:
            self.fail(error)
            return
        for opened in self.open.values():
            opened.lose()
        self.keeper.lost(how)


def _refusal(message: Refused) -> errors.QuireError:
    error = rebuild(message.kind, message.message, message.param)
    if isinstance(error, errors.Overloaded) and message.retry_after_s is not None:
        error.retry_after_s, error.estimate_s = message.retry_after_s, message.estimate_s
    return error
