"""Which tokens each row of a step may be, computed elsewhere while the model runs.

    begin(draws)          keeper: grammars move past the newest tokens, fill their rows
    the forward pass      |
    rows(...), wait()     v
    the draw

Knows: draws, and the rows they fill. Does not know: grammars, or who keeps them.

Legend: R rows that draw in a step, W words of 32 tokens.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from quire.step import Draw
from quire.structured.order import Masked, MaskOrder


class Keeper(Protocol):
    """Whoever keeps the grammars: in this process or another one."""

    @property
    def rows(self) -> memoryview:
        """All masks, one row after another; what `order` names is filled between `begin` and `wait`."""
        ...

    def begin(self, order: MaskOrder) -> None:
        """Start on `order`; never waits."""
        ...

    def wait(self) -> Masked:
        """Wait until the last order is done."""
        ...


@dataclass(slots=True)
class _Answer:
    """One `Draw` object, which its sequence shows step after step, and how much of its history the keeper knows."""

    draw: Draw
    key: int
    num_sent: int


@dataclass(frozen=True, slots=True)
class Ahead:
    """Rows whose masks could not be computed, with the reason; and tokens that are forced, the next one first."""

    failed: dict[int, str]
    forced: dict[int, tuple[int, ...]]


class Masks:
    """The masks of one runner's steps. A draw that stands in no step is forgotten; coming back, it is told again."""

    def __init__(self, keeper: Keeper, vocab_size: int) -> None:
        self._keeper = keeper
        self._num_words = -(-vocab_size // 32)
        self._answers: dict[int, _Answer] = {}
        self._num_keys = 0
        self._mask_RW: np.ndarray | None = None

    def begin(self, draws: SequenceOf[Draw]) -> bool:
        """Order the masks of a step's draws, in the order of its rows; False where none has a constraint."""
        wanted = [(row, draw) for row, draw in enumerate(draws) if draw.constraint is not None]
        if not wanted and not self._answers:
            return False
        opens, fills, before = [], [], self._answers
        self._answers = {}
        for row, draw in wanted:
            answer = before.pop(id(draw), None)
            if answer is None:
                answer = self._open(draw)
                assert draw.constraint is not None
                opens.append((answer.key, draw.constraint.owner, draw.constraint.grammar))
            self._answers[id(draw)] = answer
            fills.append((answer.key, row, tuple(draw.history[answer.num_sent :]), _may_jump(draw)))
            answer.num_sent = len(draw.history)
        closes = tuple([answer.key for answer in before.values()])
        self._keeper.begin(MaskOrder(tuple(opens), tuple(fills), closes))
        return True

    def rest(self) -> None:
        """No step comes: answers that drew in the last one are forgotten now. Never waits."""
        self.begin(())

    def wait(self) -> Ahead:
        """What is known of rows besides their masks, which stand in `rows`."""
        masked = self._keeper.wait()
        if self._mask_RW is None:
            self._mask_RW = np.frombuffer(self._keeper.rows, np.int32).reshape(-1, self._num_words)
        return Ahead(dict(masked.failures), dict(masked.forced))

    def rows(self, first: int, num_rows: int) -> np.ndarray:
        """Rows first, first + 1, ...: int32 [num_rows, W]. Rows without a constraint hold anything."""
        assert self._mask_RW is not None
        return self._mask_RW[first : first + num_rows]

    def _open(self, draw: Draw) -> _Answer:
        self._num_keys += 1
        return _Answer(draw, self._num_keys, draw.num_prompt)


def _may_jump(draw: Draw) -> bool:
    """Whether tokens may come without being drawn: no sample shares the row, nobody asks what the model thought of
    them, none of them ends the answer, and nothing but the form forbids any."""
    params = draw.params
    if len(draw.indices) > 1 or params.logprobs is not None or params.stop_token_ids:
        return False
    return not (draw.is_restricted or params.logits_processors or params.repetition_detection)
