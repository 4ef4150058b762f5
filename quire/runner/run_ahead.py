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
from typing import Any, cast

import numpy as np

from quire.layers.forward import Forward
from quire.models import Model
from quire.runner.flaws import without_flawed
from quire.runner.graphs import Graphs, Rows
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
    ordered: Ordered
    flaws: Any
    results: list[WorkResult] | None = None


class RunAhead:
    """Runs steps of single tokens, each one order ahead; with `records` by recordings of their launches (`graphs`).

    `num_begun`, `num_used` and `num_lost` count guesses.
    """

    def __init__(self, model: Model, machine: Machine, sampler: Sampler, records: bool = True) -> None:
        self._model, self._machine, self._sampler = model, machine, sampler
        self._device = cast(Any, machine.device)
        self._guess: Underway | None = None
        self._last: list[int] = []
        self._flaws = [self._device.copyback((machine.head_rows + 1,)) for _ in range(2)]
        self._turn = 0
        self.graphs = Graphs(model, machine) if records else None
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
        return self._order(works, 1, np.array(rows, np.int32), now.ordered.tokens_D)

    def _order(self, works: tuple[Work, ...], lead: int, numbers_T: Any, drawn_D: Any | None) -> Underway:
        """Order a step of these works, `lead` tokens on. `numbers_T` are the ids, or rows of `drawn_D` that hold them.

        Works are the scheduler's and change later: what is needed of them is copied.
        """
        draws = [work.draw for work in works if work.draw is not None]
        starts, size = [work.start + lead for work in works], self._machine.block_size
        blocks = [work.block_table[start // size] for work, start in zip(works, starts, strict=True)]
        rows = rows_of(works, starts, blocks, numbers_T, size)
        graphs = self.graphs
        if graphs is not None and graphs.is_on:
            logits_RV, flaws_T1 = graphs.run(rows, drawn_D)
        else:
            logits_RV, flaws_T1 = self._launch(rows, drawn_D)
        ordered = self._sampler.order(logits_RV, draws, lead)
        self._turn = 1 - self._turn
        flaws = self._flaws[self._turn]
        flaws.tensors[0][: len(flaws_T1)].copy_(flaws_T1)
        flaws.begin()
        return Underway(draws, starts, blocks, None, ordered, flaws)

    def _launch(self, rows: Rows, drawn_D: Any | None) -> tuple[Any, Any]:
        """(logits, flaws_T1), one launch after the other; the inputs travel in one copy."""
        ends_S1 = np.arange(len(rows.starts_T) + 1, dtype=np.int32)
        arrays = [rows.starts_T, rows.slots_T, ends_S1, rows.starts_T + 1, rows.tables_SB, np.zeros_like(ends_S1)]
        *there, numbers_T = self._device.put_all([*arrays, rows.numbers_T])
        # a row that failed has drawn -1; whoever asked hears of it before this step counts
        ids_T = numbers_T if drawn_D is None else drawn_D[numbers_T].clamp(min=0)
        names = ("positions_T", "slots_T", "query_starts_S1", "seq_lens_S", "block_tables_SB", "flaws_T1")
        machine = self._machine
        planned = self._device.plan_attention(ends_S1, rows.starts_T + 1, rows.tables_SB)
        inputs = dict(zip(names, there, strict=True))
        forward = Forward(machine.device, machine.arena, ids_T, kv=machine.kv, planned=planned, **inputs)
        hidden_TH = self._model.hidden(forward)
        return self._model.logits(forward, hidden_TH, there[2][:-1]), forward.flaws_T1

    def _results(self, now: Underway, rows: list[int], works: tuple[Work, ...]) -> list[WorkResult]:
        """What came of `works`, which are `rows` of `now`; waits for it."""
        every = now.ordered.results()
        if self._guess is not None:
            self._guess.tokens = [every[row].tokens[0] if every[row].tokens else -1 for row in rows]
        results = [every[row] for row in rows]
        flaws_T1 = now.flaws.wait()[0]
        if not flaws_T1[0]:
            return results
        return without_flawed(works, np.concatenate([flaws_T1[:1], flaws_T1[1:][rows]]), results)


def rows_of(
    works: tuple[Work, ...], starts: list[int], blocks: list[int], numbers_T: np.ndarray, block_size: int
) -> Rows:
    """The step that computes positions `starts` of `works`, which lie in `blocks`."""
    starts_T = np.array(starts, np.int32)
    tables_SB = np.zeros((len(works), max(len(work.block_table) for work in works)), np.int32)
    for row, work in zip(tables_SB, works, strict=True):
        row[: len(work.block_table)] = work.block_table
    slots_T = np.array(blocks, np.int32) * np.int32(block_size) + starts_T % np.int32(block_size)
    return Rows(starts_T, slots_T, tables_SB, numbers_T)


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
