"""Knows: how long a newcomer will wait and when its first token will come, from numbers. Does not know: who it is.

    those who run   |--a--|        a row and its slots come free when one ends: those ahead take them in their order
                    |----b-----|
    those ahead           |--c--------|        every prompt is read in turn, the same number of tokens a step;
    the newcomer               |.wait.|prompt|first token        while prompts are read, the others draw
    the crowd     |------------|        other tenants' rows and slots: all free when it has gone, and steps are shorter

Time is counted twice: in steps, by which answers end, and in seconds, which is what a step takes. Beyond `SIMULATED`
requests ahead the queue is taken to move as it did among the last of those.

Does not know: clocks, policies, or how the numbers were learnt.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from quire.scheduling.cost import CostModel, StepShape
from quire.scheduling.pace import ItlTarget, step_tokens

SIMULATED = 128


class Claim(NamedTuple):
    """What one request is expected to take: tokens to read, tokens to draw after them, rows, slots of the KV cache."""

    num_to_read: int
    num_to_draw: int
    num_rows: int = 1
    num_slots: int = 0


NOBODY = Claim(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of a step that only draws, of a prompt token beside it, of a query-key pair; prompt tokens in a step."""

    step_s: float
    token_s: float
    pair_s: float
    chunk: int

    @property
    def full_step_s(self) -> float:
        """Of a step that reads as many prompt tokens as it may."""
        return self.step_s + self.chunk * self.token_s

    def reading_s(self, num_tokens: int) -> float:
        """What a prompt adds to the steps that read it, those steps' own time left out."""
        return num_tokens * (self.token_s + 0.5 * self.pair_s * num_tokens)


@dataclass(frozen=True, slots=True)
class Scene:
    """Whatever a newcomer finds before it. `running` are claims on what is left of those who run; `num_backlog` prompt
    tokens of theirs are read before any other; `num_rows` and `num_slots` are free now; `ahead`, the first
    `SIMULATED` of them, and `num_beyond` more go before it. For the `num_to_draw` steps of `crowd` other tenants hold
    its rows and slots, and what they read makes each step `beside_s` longer."""

    pace: Pace
    num_rows: int
    num_slots: int
    running: SequenceOf[Claim] = ()
    num_backlog: int = 0
    ahead: SequenceOf[Claim] = ()
    num_beyond: int = 0
    crowd: Claim = NOBODY
    beside_s: float = 0.0

    def seconds(self, begin: float, end: float) -> float:
        """Of the steps from `begin` to `end`, counted from now; what they read of the queue's prompts left out."""
        most = self.crowd.num_to_draw
        return (end - begin) * self.pace.step_s + (min(end, most) - min(begin, most)) * self.beside_s


@dataclass(frozen=True, slots=True)
class Forecast:
    """Seconds until its prompt begins to be read, from then to its first token, and of a full step."""

    wait_s: float = 0.0
    own_s: float = 0.0
    step_s: float = 0.0

    @property
    def late_own_s(self) -> float:
        """The second, where it has to wait: it begins with what others leave of a step, and ends within another."""
        return self.own_s + 2 * self.step_s if self.wait_s > 0.0 else self.own_s

    @property
    def ttft_s(self) -> float:
        """Seconds to the first token."""
        return self.wait_s + self.own_s


def pace_of(cost: CostModel, num_rows: int, num_context: int, most: int, target: ItlTarget) -> Pace | None:
    """What steps take while `num_rows` that hold `num_context` tokens draw, at most `most` tokens a step; None before
    anything is known."""
    alone_s = cost.predict(StepShape(num_rows, num_rows, num_context + num_rows))
    if alone_s is None:
        return None
    chunk = max(1, step_tokens(cost, num_rows, num_context, 0, most, target) - num_rows)
    whole_s = cost.predict(StepShape(num_rows + chunk, num_rows, num_context + num_rows + chunk)) or alone_s
    return Pace(alone_s, (whole_s - alone_s) / chunk, cost.coefficients.pair_s, chunk)


def wait_for_room(scene: Scene, claim: Claim) -> float:
    """Seconds until the prompt of a newcomer with `claim` begins to be read."""
    pace, ahead = scene.pace, scene.ahead
    per_token = 1.0 / pace.chunk
    steps = scene.num_backlog * per_token
    seconds = scene.seconds(0.0, steps) + scene.num_backlog * pace.token_s
    held = [*scene.running, scene.crowd]
    ends = [(each.num_to_draw + each.num_to_read * per_token, each.num_rows, each.num_slots) for each in held]
    heapify(ends)
    rows, slots, half_s = scene.num_rows, scene.num_slots, seconds
    for number, each in enumerate([*ahead, claim]):
        while ends and (rows < each.num_rows or slots < each.num_slots):
            end, freed_rows, freed_slots = heappop(ends)
            rows += freed_rows
            slots += freed_slots
            if end > steps:
                seconds += scene.seconds(steps, end)
                steps = end
        if number == len(ahead) // 2:
            half_s = seconds
        if number == len(ahead):
            break
        took = each.num_to_read * per_token
        seconds += scene.seconds(steps, steps + took) + pace.reading_s(each.num_to_read)
        steps += took
        rows -= each.num_rows
        slots -= each.num_slots
        heappush(ends, (steps + each.num_to_draw, each.num_rows, each.num_slots))
    return seconds + scene.num_beyond * (seconds - half_s) / max(1, len(ahead) - len(ahead) // 2)


def own_time(pace: Pace, num_to_read: int) -> float:
    """Seconds from the first step of a prompt of `num_to_read` tokens to its first token."""
    return pace.reading_s(num_to_read) + max(1.0, num_to_read / pace.chunk) * pace.step_s
