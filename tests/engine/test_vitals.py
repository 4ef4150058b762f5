"""When an engine counts as hung, and when it only has a hard time. Time is a number here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from quire.engine import body
from quire.engine.body import Body
from quire.engine.pulse import Beat, Phase
from quire.engine.vitals import BUSY_S, LOOK_S, STILL_S, STILL_UNREADY_S, Health, Vital, Watch

IDLE = Beat(Phase.IDLE, 1.0, 5, 0.0, 0.0, 0.0)
STEP = Beat(Phase.STEP, 1.0, 5, 1.0, 2.0, 20.0)


class Told:
    """A watch that is told the same for a while; `at` is what it then says, `first` when it first said so."""

    def __init__(self, beat: Beat, state: str = "S", share: float = 0.0, look_s: float = LOOK_S) -> None:
        self.watch, self.beat, self.state, self.share, self.look_s = Watch(), beat, state, share, look_s
        self.now = self.cpu_s = 0.0
        self.first: dict[Health, float] = {}
        self.look()

    def look(self) -> Vital:
        vital = self.watch.look(self.now, self.beat, Body(self.state, self.cpu_s) if self.state else None)
        self.first.setdefault(vital.health, self.now)
        return vital

    def go_on(self, seconds: float) -> Vital:
        vital = self.watch.vital
        for _ in range(round(seconds / self.look_s)):
            self.now += self.look_s
            self.cpu_s += self.share * self.look_s
            vital = self.look()
        return vital


def test_who_is_stopped_is_unready_soon_and_ended_soon_after_and_nobody_is_to_blame() -> None:
    told = Told(STEP, state="T")
    vital = told.go_on(10)
    assert vital.health is Health.STALLED
    assert vital.is_stopped
    assert told.first[Health.UNREADY] == pytest.approx(STILL_UNREADY_S, abs=0.3)
    assert told.first[Health.STALLED] == pytest.approx(STILL_S, abs=0.3)
    assert "is stopped in a step predicted to take 2 s" in vital.reason


def test_who_waits_for_nothing_that_moves_is_hung() -> None:
    assert Told(STEP).go_on(10).health is Health.STALLED
    assert Told(IDLE).go_on(10).health is Health.STALLED
    assert not Told(STEP).go_on(10).is_stopped


def test_a_step_may_take_ten_times_as_long_as_was_predicted() -> None:
    told = Told(STEP, state="R", share=1.9)  # two threads
    assert told.go_on(9.5).health is Health.GOOD
    assert told.go_on(10).health is Health.UNREADY
    assert told.go_on(1).health is Health.STALLED
    assert "computes without end" in told.watch.vital.reason


def test_only_time_that_it_had_counts() -> None:
    told = Told(STEP, state="R", share=0.25)  # a quarter of a processor, and nothing else is wrong
    assert told.go_on(36).health is Health.GOOD
    told = Told(STEP, state="D")
    assert told.go_on(29).health is Health.GOOD
    assert told.go_on(500).health is Health.UNREADY  # true enough: nothing would be computed now
    told = Told(STEP, state="R")
    assert told.go_on(29).health is Health.GOOD


def test_progress_makes_all_good_again() -> None:
    told = Told(STEP, state="T")
    assert told.go_on(5).health is Health.UNREADY
    told.state, told.beat = "S", replace(STEP, num_steps=6)
    assert told.go_on(0.25).health is Health.GOOD
    assert told.go_on(2.5).health is Health.GOOD


def test_an_engine_that_beats_is_never_accused() -> None:
    told = Told(IDLE)
    for number in range(200):
        told.beat = replace(IDLE, beat_s=float(number))
        assert told.go_on(1.0).health is Health.GOOD


def test_a_look_that_comes_late_accuses_nobody() -> None:
    """This process slept, or the machine did: what happened meanwhile was not seen."""
    assert Told(STEP, state="S", look_s=60.0).go_on(300).health is Health.GOOD


def test_loading_may_take_long() -> None:
    loading = Beat(Phase.LOADING, 1.0, 0, 0.0, 0.0, 0.0)
    assert Told(loading, state="S").go_on(60).health is Health.GOOD
    assert Told(loading, state="R", share=1.0).go_on(60).health is Health.GOOD
    assert Told(loading, state="T").go_on(10).health is Health.STALLED


def test_where_the_machine_says_nothing_patience_is_longer() -> None:
    told = Told(replace(STEP, patience_s=2 * BUSY_S), state="")
    assert told.go_on(9).health is Health.GOOD
    assert told.go_on(20).health is Health.UNREADY
    assert told.go_on(2).health is Health.STALLED


def test_the_machine_says_how_a_process_is() -> None:
    code = "import sys, time; print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            assert (found := body.look(process.pid)) is not None
            process.send_signal(signal.SIGSTOP)
            end = time.monotonic() + 5
            while (found := body.look(process.pid)) is not None and found.state != "T" and time.monotonic() < end:
                time.sleep(0.005)
            assert found is not None
            assert found.state == "T"
        finally:
            process.kill()
    assert body.look(process.pid) is None
    mine = body.look(os.getpid())
    assert mine is not None
    assert (mine.state, mine.cpu_s > 0) == ("R", True)
