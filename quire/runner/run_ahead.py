"""On a device that computes while Python thinks: the next step is begun before anybody has asked for it.

    host    settle, schedule k+1 |                        | settle, schedule k+2 |
    device  step k | step k+1 (guessed: the same sequences, the tokens of step k, read where they were drawn)    | ...

When step k is under way, a step of the same sequences is very likely next, each with the token that it is drawing just
now; on the device that token is there already. So that step is ordered at once, behind step k, and when the scheduler
asks for it, its results are on their way. If it asks for fewer sequences (some have ended), theirs are taken; if it
asks for anything else, the guess is forgotten: what it wrote to pages lies behind all that counts as computed, and is
written again before anybody reads it.

Only steps of single tokens are guessed, of sequences that draw a token and ask for nothing else, that have room for one
more, and after a step that went on as the one before it: where sequences come and go with every step, nothing is.

Knows: works, and what may be asked of them next. Does not know: the scheduler, how a token is chosen.

Legend: S sequences, T = S tokens, B blocks a table row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from quire.layers.forward import Forward
from quire.models import Model
from quire.runner.flaws import without_flawed
from quire.runner.inputs import Machine
from quire.sampling.sampler import Ordered, Sampler
from quire.step import Draw, Step, StepResult, Work, WorkResult


@dataclass(slots=True)
class Underway:
    """A step that was ordered. Row r draws as `draws[r]` after computing position `starts[r]` in block `blocks[r]`.

    `tokens` are those that its rows computed, None until they are known.
    """

    draws: list[Draw]
    starts: list[int]
    blocks: list[int]
    tokens: list[int] | None
    forward: Forward
    ordered: Ordered
    flaws: Any
    results: list[WorkResult] | None = None


class RunAhead:
    """Runs steps of single tokens, each one order ahead. `num_begun`, `num_used` and `num_lost` count guesses."""

    def __init__(self, model: Model, machine: Machine, sampler: Sampler) -> None:
        self._model, self._machine, self._sampler = model, machine, sampler
        self._device: Any = machine.device
        self._guess: Underway | None = None
        self._last: list[int] = []
        self.num_begun = self.num_used = self.num_lost = 0

    def run(self, step: Step, is_free: bool = True) -> StepResult | None:
        """The results of `step`; None if it is not of this kind, or not `is_free` of masks: then others must run it."""
        works = step.works
        suits = is_free and not step.copies and len(works) <= self._machine.head_rows
        if not suits or not all(map(is_plain, works)):
            self.forget()
            return None
        now, rows = self._ordered(works)
        draws = [id(work.draw) for work in works]
        steady = set(draws) <= set(self._last)
        self._last = draws
        self._guess = self._begin_next(now, rows, works) if steady else None
        return StepResult(tuple(self._results(now, rows, works)))

    def forget(self) -> None:
        """What was guessed does not come."""
        self.num_lost += self._guess is not None
        self._guess = None
        self._last = []

    def _ordered(self, works: tuple[Work, ...]) -> tuple[Underway, list[int]]:
        """The order that computes `works`, and their rows in it."""
        guess = self._guess
        rows = None if guess is None else matching(guess, works, self._machine.block_size)
        if guess is not None and rows is not None:
            self.num_used += 1
            return guess, rows
        self.num_lost += guess is not None
        tokens = [work.tokens[0] for work in works]
        now = self._order(works, 0, np.array(tokens, np.int32), None)
        now.tokens = tokens
        return now, list(range(len(works)))

    def _begin_next(self, now: Underway, rows: list[int], works: tuple[Work, ...]) -> Underway | None:
        """The step after `works`, which draw their tokens in `rows` of `now`; None where one has no room for more."""
        size = self._machine.block_size
        if any((work.start + 1) // size >= len(work.block_table) for work in works):
            return None
        self.num_begun += 1
        whole = len(rows) == len(now.draws)
        return self._order(works, 1, np.array(rows, np.int32), now.ordered.tokens_D, whole)

    def _order(
        self, works: tuple[Work, ...], lead: int, numbers_T: Any, drawn_D: Any | None, whole: bool = False
    ) -> Underway:
        """Order a step of these works, `lead` tokens on. `numbers_T` are the ids, or rows of `drawn_D` that hold them.

        Works are the scheduler's and change later: what is needed of them is copied.
        """
        draws = [work.draw for work in works if work.draw is not None]
        starts = [work.start + lead for work in works]
        inputs, blocks, numbers_T, rows_R = self._inputs(works, starts, numbers_T)
        if drawn_D is None:
            ids_T = numbers_T
        else:  # a row that failed has drawn -1; whoever asked hears of it before this step counts
            ids_T = (drawn_D if whole else drawn_D[numbers_T]).clamp(min=0)
        forward = Forward(**inputs, ids_T=ids_T)
        hidden_TH = self._model.hidden(forward)
        ordered = self._sampler.order(self._model.logits(forward, hidden_TH, rows_R), draws, lead)
        flaws = self._device.copyback((1,))
        flaws.tensors[0].copy_(inputs["flaws_T1"][:1])
        flaws.begin()
        return Underway(draws, starts, blocks, None, forward, ordered, flaws)

    def _inputs(
        self, works: tuple[Work, ...], starts: list[int], numbers_T: Any
    ) -> tuple[dict[str, Any], list[int], Any, Any]:
        """Fields of `Forward` on the device but for the ids, the block that each row writes to, and `numbers_T` and the
        numbers of all rows on the device; one copy."""
        size, num_rows = self._machine.block_size, len(works)
        blocks = [work.block_table[start // size] for work, start in zip(works, starts, strict=True)]
        starts_T = np.array(starts, np.int32)
        tables_SB = np.zeros((num_rows, max(len(work.block_table) for work in works)), np.int32)
        for row, work in zip(tables_SB, works, strict=True):
            row[: len(work.block_table)] = work.block_table
        slots_T = np.array(blocks, np.int32) * np.int32(size) + starts_T % np.int32(size)
        ends_S1, flaws_T1 = np.arange(num_rows + 1, dtype=np.int32), np.zeros(num_rows + 1, np.int32)
        there = self._device.put_all([starts_T, slots_T, ends_S1, starts_T + 1, tables_SB, flaws_T1, numbers_T])
        names = ("positions_T", "slots_T", "query_starts_S1", "seq_lens_S", "block_tables_SB", "flaws_T1")
        shared = {"device": self._machine.device, "arena": self._machine.arena, "kv": self._machine.kv}
        return {**shared, **dict(zip(names, there, strict=False))}, blocks, there[-1], there[2][:num_rows]

    def _results(self, now: Underway, rows: list[int], works: tuple[Work, ...]) -> list[WorkResult]:
        """What came of `works`, which are `rows` of `now`; waits for it."""
        every = now.ordered.results()
        if self._guess is not None:
            self._guess.tokens = [every[row].tokens[0] if every[row].tokens else -1 for row in rows]
        results = [every[row] for row in rows]
        if not now.flaws.wait()[0][0]:
            return results
        flaws_T1 = self._device.fetch(now.forward.flaws_T1)
        return without_flawed(works, np.concatenate([flaws_T1[:1], flaws_T1[1:][rows]]), results)


def is_plain(work: Work) -> bool:
    """One token, whose row draws one more, and nobody asks for anything else."""
    draw = work.draw
    if draw is None or len(work.tokens) != 1 or work.prompt_logprobs is not None or len(draw.indices) != 1:
        return False
    params = draw.params
    penalised = params.repetition_penalty != 1.0 or params.presence_penalty or params.frequency_penalty
    told = draw.num_top is not None or bool(params.logits_processors)
    return not (penalised or told or draw.constraint is not None or draw.is_restricted)


def matching(guess: Underway, works: Sequence[Work], block_size: int) -> list[int] | None:
    """The rows of `guess` that are `works`; None if any is not among them as it was guessed."""
    places = {id(draw): row for row, draw in enumerate(guess.draws)}
    rows = []
    for work in works:
        row = places.get(id(work.draw))
        if row is None or guess.tokens is None:
            return None
        block = work.block_table[work.start // block_size]
        if (guess.starts[row], guess.tokens[row], guess.blocks[row]) != (work.start, work.tokens[0], block):
            return None
        rows.append(row)
    return rows
