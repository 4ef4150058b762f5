"""Around the engine: read messages, step, post reports; sleep when there is nothing to do.

Knows: an engine, a mailbox, its pulse, a clock given to it. Does not know: what carries the messages.
"""

from __future__ import annotations

from collections.abc import Callable

from quire.engine.engine import Engine, refused
from quire.engine.garbage import Sweeper
from quire.engine.mailbox import Mailbox
from quire.engine.messages import Abort, Prepare, Prepared, StepReport, Submit, ToEngine
from quire.engine.pulse import Phase, Pulse, name_of
from quire.errors import QuireError, UnsupportedField

Clock = Callable[[], float]


def run(
    engine: Engine, mailbox: Mailbox, clock: Clock, sweeper: Sweeper | None = None, pulse: Pulse | None = None
) -> None:
    """Serve until the other side goes. An abort takes effect before the next step is scheduled.

    Every turn, idle ones too, beats on the `pulse`; whoever is being taken in is named there.
    """
    while mailbox.is_open:
        if pulse is not None:
            pulse.beat(clock(), Phase.BETWEEN if engine.has_work else Phase.IDLE)
        messages = mailbox.receive(wait=not engine.has_work)
        for message in messages:
            if pulse is not None and isinstance(message, Submit):
                pulse.accuse([name_of(message.request.id)])
            _obey(message, engine, mailbox, clock)
        _drop_late(engine, mailbox, clock)
        report = _timed_step(engine, clock)
        if report is not None:
            mailbox.send(report)
        elif messages and not engine.has_work:
            engine.scheduler.check()  # idle: the conservation law must hold
        for found in engine.examine(clock()):
            mailbox.send(found)
        if sweeper is not None:
            sweeper.look(not engine.has_work, clock())


def _timed_step(engine: Engine, clock: Clock) -> StepReport | None:
    start = clock()
    deltas = engine.advance(start)
    return None if deltas is None else engine.timed(deltas, clock() - start)


def _drop_late(engine: Engine, mailbox: Mailbox, clock: Clock) -> None:
    late, report = engine.expire(clock())
    for each in late:
        mailbox.send(each)
    if report is not None:
        mailbox.send(report)


def _obey(message: ToEngine, engine: Engine, mailbox: Mailbox, clock: Clock) -> None:
    if isinstance(message, Submit):
        try:
            engine.add(message.request, clock())
        except QuireError as problem:
            mailbox.send(refused(message.request.id, problem))
    elif isinstance(message, Abort):
        deltas = engine.abort(message.request_id, message.index, message.served)
        if deltas:
            mailbox.send(StepReport(deltas, engine.scheduler.stats()))
    elif isinstance(message, Prepare):
        _prepare(message, engine, mailbox)


def _prepare(message: Prepare, engine: Engine, mailbox: Mailbox) -> None:
    """The answer is sent whenever it is known, by whoever knows it."""

    def told(error: QuireError | None) -> None:
        said = Prepared(message.id) if error is None else Prepared(message.id, type(error).__name__, error.message)
        mailbox.send(said)

    if engine.grammars is None:
        told(UnsupportedField("this engine keeps no grammars", param="structured_outputs"))
    else:
        engine.grammars.prepare(message.constraint, told, message.is_known)
