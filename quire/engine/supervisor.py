"""Keeps an engine there: looks at it, ends one that stands still, and brings another that goes on with all requests.

    lost -> suspects? -> start another -> try suspects apart (`suspects.py`) -> let everyone in
     ^__________________ lost again ________________________|

Knows: engine processes, their pulse, the client whose streams must go on. Does not know: HTTP, logs, tokens.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Protocol

from quire.engine.body import Body
from quire.engine.client import EngineClient, Link
from quire.engine.open_request import OpenRequest
from quire.engine.pulse import Pulse, name_of
from quire.engine.restarts import REST_S, Restarts
from quire.engine.suspects import Suspects
from quire.engine.vitals import LOOK_S, Health, Watch
from quire.errors import DeadlineExceeded, EngineDead, InternalError, KilledEngine, QuireError
from quire.events import EngineLoss

DUMP_S = 0.3  # what an engine gets to write down where it stands
TRIAL_LOOK_S = 0.005
SEARCH_TRIAL_S = 1.0  # a search says nothing before its end: it has lived if it runs so much longer than it had before
PATIENCE_S = 60.0  # how long one who came after the loss waits
SWEEP_S = 0.05


class End(Protocol):
    """How an engine ended; `is_outside`: by somebody's signal, which no request can send."""

    @property
    def how(self) -> str:
        """In words."""
        ...

    @property
    def is_outside(self) -> bool:
        """Whether somebody from outside ended it."""
        ...

    @property
    def remedy(self) -> str:
        """What the operator can do about it, if anything is known."""
        ...


class LinkToProcess(Link, Protocol):
    """A link to an engine that can be looked at and ended."""

    pulse: Pulse

    def look(self) -> Body | None:
        """What the machine says of its process."""
        ...

    def dump(self) -> None:
        """Ask it to write down where its threads stand."""
        ...

    def kill(self) -> None:
        """End it now."""
        ...

    async def ended(self) -> End:
        """Wait until it has ended, or end it."""
        ...


class Supervisor:
    """The keeper of one client's engine. `start` starts a process and returns its link."""

    def __init__(self, client: EngineClient, link: LinkToProcess, start: Callable[[], LinkToProcess]) -> None:
        self._client, self._link, self._start = client, link, start
        self._restarts, self._suspects, self._watch = Restarts(), Suspects(), Watch()
        self._gone = asyncio.Event()
        self._lost_s = 0.0
        self._stall = ""
        self._is_stopped = False
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def trouble(self) -> str | None:
        """Why the engine does not get on."""
        return self._watch.vital.reason or None

    @property
    def link(self) -> LinkToProcess:
        """The engine of now."""
        return self._link

    def begin(self) -> None:
        """The first engine serves: from here on it is watched, and replaced."""
        self._tasks = [asyncio.create_task(self._guarded(each)) for each in (self._run, self._look)]

    def lost(self, how: str) -> None:
        """The engine is gone."""
        if not self._gone.is_set():
            self._lost_s = time.monotonic()
            self._gone.set()

    async def how_it_ended(self) -> tuple[str, str]:
        """What became of the engine, once it is gone, and what the operator can do."""
        end = await self._link.ended()
        return end.how, end.remedy

    async def close(self) -> None:
        """Look no more, start no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _guarded(self, work: Callable[[], Coroutine[object, object, None]]) -> None:
        """A mistake of ours in here must not leave streams waiting for ever."""
        try:
            await work()  # made here: a task that is cancelled before it begins would leave it unawaited
        except Exception:
            self._client.fail(InternalError("what keeps the engine there met a mistake of its own; see the log"))
            raise

    async def _look(self) -> None:
        """Look at the engine now and then; one that stands still says where, and is ended."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self._gone.is_set() or self._stall:
                continue
            link = self._link
            vital = self._watch.look(time.monotonic(), link.pulse.read(with_names=False), link.look())
            if vital.health is Health.STALLED:
                self._stall, self._is_stopped = vital.reason, vital.is_stopped
                link.dump()
                await asyncio.sleep(DUMP_S)
                link.kill()

    async def _run(self) -> None:
        while True:
            await self._gone.wait()
            began_s, first = self._lost_s, None
            while self._gone.is_set():
                loss, delay_s = await self._bury()
                first = first or loss
                await (self._rest(loss) if delay_s is None else self._pause(delay_s))
                await self._bring()
            if first is not None:
                self._let_in(began_s, first)

    async def _bury(self) -> tuple[EngineLoss, float | None]:
        """What the engine died of, and whether a request is to blame; seconds until another one may be started."""
        end = await self._link.ended()
        beat = self._link.pulse.read()
        await self._link.close()
        outside = self._is_stopped if self._stall else end.is_outside
        cause = "stalled" if self._stall else "killed" if outside else "exited"
        words = self._client.last_words
        how = self._stall or (f"{end.how}: {words}" if words else end.how)
        was_tried, culprit = self._blame(set(beat.names), outside)
        loss = EngineLoss(cause, how, self._suspects.num + (culprit is not None), culprit=culprit, remedy=end.remedy)
        self._tell(loss)
        if culprit is not None:
            self._restarts.explain()
            self._client.fail(_killed(how), [culprit])
        got_on = beat.num_steps > 0 or (was_tried and not outside)
        return loss, self._restarts.after(time.monotonic(), got_on, outside or was_tried)

    def _blame(self, names: set[int], outside: bool) -> tuple[bool, str | None]:
        """Whether suspects were on trial, and who of them it was, if that is certain."""
        here = self._client.open
        self._suspects.keep(here.keys())
        was_tried = self._suspects.are_tried
        if outside:
            self._suspects.retry()
            return was_tried, None
        return was_tried, self._suspects.accuse([name for name in here if name_of(name) in names] if names else [])

    async def _rest(self, loss: EngineLoss) -> None:
        """Nothing helps: say so to everyone, and try again much later."""
        self._tell(replace(loss, is_final=True))
        hint = f"Another one is tried after {REST_S:.0f} s. See the server's log."
        self._client.fail(EngineDead("engines die as soon as they are started", got=loss.how, hint=hint))
        self._suspects = Suspects()
        await asyncio.sleep(REST_S)

    async def _pause(self, seconds: float) -> None:
        waiting = asyncio.create_task(self._sweep())
        try:
            await asyncio.sleep(seconds)
        finally:
            waiting.cancel()

    async def _bring(self) -> None:
        """Another engine, and suspects into it, apart from the rest; `_gone` is set where it was lost on the way."""
        self._gone.clear()
        self._watch, self._stall, self._is_stopped = Watch(), "", False
        before = self._client.ready
        self._link = self._start()
        waiting = asyncio.create_task(self._sweep())
        try:
            ready = await self._client.attach(self._link)
            if before is not None and ready.receipt != before.receipt:
                self._client.fail(_another(), [name for name, each in self._client.open.items() if each.was_sent])
            await self._try_suspects()
        except EngineDead as problem:  # whether somebody killed it is told by its end: it must not be killed first
            self.lost(problem.message)
        except QuireError as problem:
            self._link.kill()
            self._client.last_words = problem.message
            self.lost(problem.message)
        finally:
            waiting.cancel()

    async def _try_suspects(self) -> None:
        client = self._client
        while not self._gone.is_set() and (group := self._suspects.next_group()) is not None:
            ages_s = {name: self._lost_s - each.sent_s for name in group if (each := client.open.get(name)) is not None}
            client.submit(group)
            while not self._gone.is_set() and not all(self._has_lived(name, age) for name, age in ages_s.items()):
                await asyncio.sleep(TRIAL_LOOK_S)
            if not self._gone.is_set():
                self._suspects.clear()

    def _has_lived(self, name: str, age_s: float) -> bool:
        """True if it has come further than it was, or is here no more."""
        opened = self._client.open.get(name)
        if opened is None or opened.is_over or opened.is_heard:
            return True
        if opened.request.beams is None or not opened.is_sent:
            return False
        return time.monotonic() - opened.sent_s > 1.5 * age_s + SEARCH_TRIAL_S

    def _let_in(self, began_s: float, first: EngineLoss) -> None:
        again = [each for each in self._client.open.values() if each.was_sent and not each.is_over]
        self._client.let_in()
        self._tell(replace(first, culprit=None, num_replayed=len(again), seconds=time.monotonic() - began_s))

    async def _sweep(self) -> None:
        """While there is no engine nobody else tells those who wait that it has been too long."""
        while True:
            now = time.monotonic()
            for name, opened in list(self._client.open.items()):
                if not opened.was_sent and (error := _too_late(opened, now)) is not None:
                    self._client.fail(error, [name])
            await asyncio.sleep(SWEEP_S)

    def _tell(self, loss: EngineLoss) -> None:
        if self._client.on_loss is not None:
            self._client.on_loss(loss)


def supervised(start: Callable[[], LinkToProcess]) -> EngineClient:
    """A client of an engine that is watched and replaced; the process is started here and now."""
    link = start()
    client = EngineClient(link)
    client.keeper = Supervisor(client, link, start)
    return client


def _killed(how: str) -> KilledEngine:
    return KilledEngine(
        "the engine dies of this request, and of no other", got=how, hint="It is not tried again; the server goes on."
    )


def _another() -> EngineDead:
    return EngineDead(
        "the engine that came after a loss computes something else than the one before", hint="See /receipt."
    )


def _too_late(opened: OpenRequest, now: float) -> QuireError | None:
    deadline_s = opened.request.deadline_s
    if deadline_s is not None and now >= deadline_s:
        return DeadlineExceeded("the deadline of the first token passed while the engine was being started again")
    if now - opened.came_s > PATIENCE_S:
        return EngineDead(
            "the engine was not there in time", got=f"{PATIENCE_S:.0f} s of waiting", hint="Try again later."
        )
    return None
