"""Knows: how much of a step is left for the flex lane: rows, tokens and time. Does not know: blocks, or who waits.

seconds   |                     .-- SLOWDOWN of what the ordinary lane's part takes
of a step |---- ordinary -----|~|          ordinary sequences run
          |~~~~~~~~~~~~~~~~~~~~~~~~~~|     nobody else is here: whoever comes waits for at most one such step
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from itertools import accumulate
from math import inf

from quire.scheduling.cost import CostModel, StepShape, num_chunk_pairs
from quire.scheduling.pace import LEAST_CHUNK

SLOWDOWN = 0.03  # of steps in which ordinary sequences are, on average
MOST_SLOWDOWN = 0.05  # of one such step, where those before it were spared
NOTHING = StepShape(0, 0, 0)


@dataclass(slots=True)
class Spare:
    """What is left of one step. `shape` is what is in it already; it grows with what `singles` and `prompt` give away.

    `limit_s` bounds what `cost` predicts for it; with `must_move` the first asker gets something whatever it costs.
    """

    cost: CostModel
    shape: StepShape
    num_rows: int
    num_tokens: int
    limit_s: float = inf
    must_move: bool = False

    @property
    def seconds(self) -> float:
        """What the step will take as far as it goes; 0 if nothing is known."""
        return self.cost.predict(self.shape) or 0.0

    def singles(self, num_held: SequenceOf[int]) -> int:
        """How many of these may draw their next token, the first ones first; they hold so many tokens each."""
        most = min(len(num_held), self.num_rows, self.num_tokens)
        contexts = list(accumulate(num_held[:most], initial=0))
        low, high = (1 if self.must_move and most else 0), most
        while low < high:
            count = (low + high + 1) // 2
            if self._fits(_grown(self.shape, count, count, contexts[count])):
                low = count
            else:
                high = count - 1
        if low:
            self._give(_grown(self.shape, low, low, contexts[low]), low, low)
        return low

    def prompt(self, start: int, owed: int, num_rows: int) -> int:
        """Tokens that one may compute who owes `owed` behind `start` and fills `num_rows`; 0 if none."""
        if num_rows > self.num_rows:
            return 0
        most = min(owed, self.num_tokens)
        low, high = (min(most, LEAST_CHUNK) if self.must_move else 0), most
        while low < high:
            count = (low + high + 1) // 2
            if self._fits(_chunk(self.shape, start, count, count == owed)):
                low = count
            else:
                high = count - 1
        if low:
            self._give(_chunk(self.shape, start, low, low == owed), low, num_rows)
        return low

    def _give(self, shape: StepShape, num_tokens: int, num_rows: int) -> None:
        self.shape, self.must_move = shape, False
        self.num_tokens -= num_tokens
        self.num_rows -= num_rows

    def _fits(self, shape: StepShape) -> bool:
        return (self.cost.predict(shape) or 0.0) <= self.limit_s


def _grown(shape: StepShape, num_tokens: int, num_draws: int, num_context: int, num_pairs: int = 0) -> StepShape:
    return StepShape(
        shape.num_tokens + num_tokens,
        shape.num_draws + num_draws,
        shape.num_context_tokens + num_context,
        shape.num_pairs + num_pairs,
    )


def _chunk(shape: StepShape, start: int, count: int, draws: bool) -> StepShape:
    return _grown(shape, count, int(draws), start + count, num_chunk_pairs(start, count) if count > 1 else 0)
