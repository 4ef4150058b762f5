"""The loop with a clock of its own. Knows: when time is asked for. Does not know: pipes."""

from __future__ import annotations

from itertools import count

import pytest

from quire.cache.blocks import BlockPool
from quire.engine import loop
from quire.engine.engine import Engine
from quire.engine.messages import Abort, FromEngine, StepReport, Submit, ToEngine
from quire.errors import InternalError
from quire.request import Request, SamplingParams
from quire.runner.fake import FakeRunner
from quire.scheduling.limits import SchedulerLimits
from quire.scheduling.scheduler import Scheduler


class Script:
    """A mailbox that delivers `messages` at once and closes when the engine has nothing more to say."""

    def __init__(self, messages: list[ToEngine]) -> None:
        self.is_open = True
        self.sent: list[FromEngine] = []
        self._messages = messages

    def receive(self, wait: bool) -> list[ToEngine]:
        messages, self._messages = self._messages, []
        self.is_open = bool(messages) or not wait
        return messages

    def send(self, message: FromEngine) -> None:
        self.sent.append(message)


def engine() -> Engine:
    return Engine(Scheduler(SchedulerLimits(4, 64, 100), BlockPool(16)), FakeRunner())


def test_every_step_is_timed_and_the_next_one_foreseen() -> None:
    ticks = count()
    params = SamplingParams(seed=1, max_tokens=20, ignore_eos=True)
    mailbox = Script([Submit(Request("a", (1, 2, 3), params))])
    loop.run(engine(), mailbox, lambda: float(next(ticks)))
    reports = [message for message in mailbox.sent if isinstance(message, StepReport)]
    assert [report.stats.seconds for report in reports] == [1.0] * 20
    assert reports[0].stats.predicted_s is None
    assert reports[-1].stats.predicted_s == pytest.approx(1.0, rel=0.05)


def test_who_leaves_between_two_steps_is_reported_without_telling_the_last_step_again() -> None:
    class Leaving(Script):
        def receive(self, wait: bool) -> list[ToEngine]:
            if sum(isinstance(message, StepReport) for message in self.sent) == 2:
                self._messages = [Abort("a")]
            return super().receive(wait)

    params = SamplingParams(seed=1, max_tokens=20, ignore_eos=True)
    mailbox = Leaving([Submit(Request("a", (1, 2, 3), params))])
    loop.run(engine(), mailbox, lambda: 0.0)
    stats = [message.stats for message in mailbox.sent if isinstance(message, StepReport)]
    assert [each.num_output_tokens for each in stats] == [1, 1, 0]
    assert [each.num_aborted_tokens for each in stats] == [0, 0, 4]


def test_a_step_is_timed_once() -> None:
    bare = engine()
    bare.add(Request("a", (1, 2, 3), SamplingParams(seed=1)), 0.0)
    deltas = bare.advance(0.0)
    assert deltas
    report = bare.timed(deltas, 0.5)
    assert (report.deltas, report.stats.seconds) == (deltas, 0.5)
    with pytest.raises(InternalError, match="never was"):
        bare.timed(deltas, 0.5)
