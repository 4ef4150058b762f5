"""The page between an engine and its front: what is written is read, also by another process and after a death."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from quire.cache.blocks import BlockPool
from quire.engine import loop
from quire.engine.engine import Engine
from quire.engine.messages import FromEngine, Refused, Submit, ToEngine
from quire.engine.pulse import MOST_NAMES, Phase, Pulse, name_of
from quire.engine.pulsing import (
    GUESSED,
    LEAST_GUESSED_S,
    LEAST_PATIENCE_S,
    PATIENCE,
    UNKNOWN_S,
    Patience,
    PulsingRunner,
)
from quire.request import Request, SamplingParams
from quire.runner.fake import FakeRunner
from quire.scheduling.cost import StepShape
from quire.scheduling.limits import SchedulerLimits
from quire.scheduling.scheduler import Scheduler
from quire.step import Step, StepResult


def test_another_process_writes_and_its_death_leaves_the_page() -> None:
    page = Pulse.create()
    code = (
        "import os, sys; from quire.engine.pulse import Pulse, Phase\n"
        "page = Pulse.inherited(int(sys.argv[1])); page.beat(5.0, Phase.BETWEEN)\n"
        "page.begin(7.5, [11, 2**64 - 1], 0.25, 10.0); os.abort()"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(page.fd)], pass_fds=[page.fd], stderr=subprocess.DEVNULL)
    assert ended.returncode < 0
    beat = page.read()
    assert (beat.phase, beat.beat_s, beat.began_s, beat.num_steps) == (Phase.STEP, 7.5, 7.5, 0)
    assert (beat.predicted_s, beat.patience_s, beat.names) == (0.25, 10.0, (11, 2**64 - 1))
    assert page.read(with_names=False).names == ()
    page.close()


def test_a_descriptor_that_is_something_else_is_refused() -> None:
    fd = os.memfd_create("other")
    os.ftruncate(fd, 1 << 20)
    with pytest.raises(ValueError, match="not a pulse"):
        Pulse.inherited(fd)
    os.close(fd)


def test_a_page_holds_so_many_names_and_no_more() -> None:
    page = Pulse.create()
    page.accuse(range(MOST_NAMES + 5))
    assert len(page.read().names) == MOST_NAMES
    page.beat(1.0, Phase.IDLE)
    assert page.read().names == ()
    page.close()


def test_before_every_step_and_every_newcomer_it_is_said_whose_it_is() -> None:
    seen: list[tuple[Phase, frozenset[int], int]] = []
    page = Pulse.create()

    class Looking(FakeRunner):
        def run(self, step: Step) -> StepResult:
            beat = page.read()
            seen.append((beat.phase, frozenset(beat.names), beat.num_steps))
            return super().run(step)

    class Script:
        is_open = True
        names_at_submit: tuple[int, ...] = ()

        def __init__(self) -> None:
            params = SamplingParams(seed=1, max_tokens=6, n=2, ignore_eos=True)
            self.left: list[ToEngine] = [Submit(Request(name, (1, 2, 3), params)) for name in "ab"]
            self.too_long = Submit(Request("c", (1,) * 99, params))

        def receive(self, wait: bool) -> list[ToEngine]:
            assert page.read().names == ()
            assert page.read().phase is (Phase.IDLE if wait else Phase.BETWEEN)
            self.is_open = bool(self.left) or not wait
            messages, self.left = self.left, []
            return [self.too_long] if len(seen) == 4 else messages

        def send(self, message: FromEngine) -> None:
            if isinstance(message, Refused):
                assert page.read().names == (name_of("c"),)
            else:
                assert set(page.read().names) == {name_of("a"), name_of("b")}  # until the news are out

    engine = Engine(Scheduler(SchedulerLimits(4, 64, 100), BlockPool(16)), Looking())
    engine.runner = PulsingRunner(engine.runner, engine.scheduler, page, lambda: 3.0)
    loop.run(engine, Script(), lambda: 0.0, pulse=page)
    both = frozenset({name_of("a"), name_of("b")})
    assert seen == [(Phase.STEP, both, number) for number in range(6)]
    assert page.read().num_steps == 6
    page.forget()
    assert page.read().num_steps == 0
    page.close()


def test_patience_is_short_only_for_steps_of_a_size_that_was_seen() -> None:
    patience = Patience()
    small, large = StepShape(10, 1, 100, 50), StepShape(1000, 1, 100_000, 500_000)
    assert patience.of(small, None) == UNKNOWN_S
    assert patience.of(small, 0.1) == LEAST_GUESSED_S
    patience.learn(small)
    assert patience.of(small, 0.1) == LEAST_PATIENCE_S
    assert patience.of(small, 7.0) == PATIENCE * 7.0
    assert patience.of(large, 0.5) == LEAST_GUESSED_S
    assert patience.of(large, 70.0) == GUESSED * 70.0
    patience.learn(large)
    assert patience.of(large, 0.5) == LEAST_PATIENCE_S
