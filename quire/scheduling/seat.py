"""Knows: one sequence, with what only the scheduler needs to remember of it. Does not know: the others."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field

from quire.cache.prefix import Chain
from quire.request import Sequence
from quire.scheduling import policy
from quire.scheduling.accounts import Account
from quire.scheduling.policy import Place
from quire.scheduling.repetition import repeats_at_the_end
from quire.step import Draw, Work

NO_WORK = Work(0, (), 0, ())


@dataclass(slots=True, eq=False)
class Seat(Sequence):
    """A sequence in the line, at its `place` while it `runs` and its `turn` while it `waits`; both never change.

    `num_passed` requests were admitted before it because it did not fit, `num_warmer` because more of them was cached:
    these had `num_warmer_tokens` to compute. `num_reached` tokens were computed when it was
    put back last. `indices` are the samples that it stands for: all n until the prompt is computed, then itself alone.
    `num_rows` are the rows that it will fill, once its samples part or its beams are awake.
    `num_told` prompt tokens after the first have had their log-probabilities told. `num_named` of its blocks have been
    offered to the prefix index, where the first is called `opening`, if it was looked for. `steady`: it owes one token,
    alone, and its next work is `again` with the token `drawn`; `end_ids` and `next_stop` say when there is more to it.
    A beam has `company`: the beams of its search, itself among them, which are put back together. Only the first of
    them waits then; the others are `asleep`, stand in no line and hold nothing until the first has caught up. A beam
    whose `num_candidates` are known owes nothing until those of the others are. `is_stuck` once its
    answer has begun to repeat itself without end, which is counted and changes nothing.

    0 ... num_named * B ....... num_computed ....... num_computed + granted ..... len(tokens)
    |-- offered to others --|-- a partly filled block --|-- this step's work --|-- still owed --|
    |---------------------------------- blocks ----------------------------------|
    """

    account: Account = field(default_factory=lambda: Account(""))
    place: Place = (0.0, 0, 0)
    turn: Place = (0.0, 0, 0)
    waits: bool = False
    runs: bool = False
    num_passed: int = 0
    num_warmer: int = 0
    num_warmer_tokens: int = 0
    num_reached: int = 0
    indices: tuple[int, ...] = (0,)
    chain: Chain | None = None
    opening: bytes = b""
    num_named: int = 0
    num_told: int = 0
    num_shared: int = 0
    started: bool = False
    draw: Draw | None = None
    steady: bool = False
    again: Work = field(default_factory=lambda: NO_WORK)
    drawn: SequenceOf[int] = ()
    num_rows: int = 1
    company: SequenceOf[Seat] = ()
    asleep: bool = False
    num_candidates: int = 0
    end_ids: frozenset[int] = frozenset()
    last_len: int = 0
    ends_by_itself: bool = True
    is_stuck: bool = False
    next_stop: int = 0
    name: str = ""

    def __post_init__(self) -> None:
        request, params = self.request, self.request.params
        self.end_ids = frozenset([*(() if params.ignore_eos else request.eos_ids), *(params.stop_token_ids or ())])
        self.last_len = request.max_total_tokens
        self.ends_by_itself = not params.ignore_eos
        self.name = request.id
        self.num_rows = len(self.indices)

    @property
    def worst_charge(self) -> float:
        """The most that its tenant can still be charged with for it."""
        num_left = self.last_len - len(self.tokens)
        num_prompt = 0 if self.started else self.num_prompt
        return policy.prompt_charge(num_prompt) + self.num_rows * num_left * policy.draw_charge(self.last_len)

    @property
    def num_own(self) -> int:
        """Tokens that were computed for it: neither found in the cache nor shared with the samples beside it."""
        return max(0, max(self.num_computed, self.num_reached) - max(self.num_cached, self.num_shared))

    @property
    def owes_prompt_logprobs(self) -> bool:
        """True while prompt rows must be computed to be told, and may not come from the prefix cache."""
        return self.request.params.prompt_logprobs is not None and self.num_told < self.num_prompt - 1

    def work(self, grant: int) -> Work:
        """The next `grant` tokens as work; blocks for them are already held."""
        start = self.num_computed
        end = start + grant
        draw = self._next_draw() if end == len(self.tokens) else None
        if self.owes_prompt_logprobs and self.num_told < end:
            successors = self.request.prompt[start + 1 : end + 1]
            wanted = self.request.params.prompt_logprobs
            return Work(self.id, self.tokens[start:end], start, self.blocks, draw, wanted, successors)
        return Work(self.id, self.tokens[start:end], start, self.blocks, draw)

    def fill(self, num_rows: int) -> None:
        """Stand for so many rows from here on."""
        if self.runs:
            self.account.num_rows += num_rows - self.num_rows
        self.num_rows = num_rows

    def settle_down(self, is_shared: bool, block_size: int) -> None:
        """See whether it is steady from here on: nothing but a new block can change what its next steps look like."""
        self.steady = bool(self.blocks) and not is_shared and self._is_settled
        if self.steady:
            self.find_next_stop(block_size)
            self.drawn = self.tokens[-1:]
            self.again = Work(self.id, self.drawn, self.num_computed, self.blocks, self.draw)

    def gets_stuck(self) -> bool:
        """Whether its answer repeats itself, and did not before; asked whenever a block of it is full."""
        if self.is_stuck or not repeats_at_the_end(self.tokens, self.num_prompt):
            return False
        self.is_stuck = True
        return True

    def find_next_stop(self, block_size: int) -> None:
        """The number of computed tokens at which a block is full, or the last token is drawn."""
        self.next_stop = min(self.num_computed - self.num_computed % block_size + block_size, self.last_len - 1)

    @property
    def _is_settled(self) -> bool:
        draw, params = self.draw, self.request.params
        return (
            draw is not None
            and draw.indices == self.indices == (self.index,)
            and not draw.banned_ids
            and self.num_output >= params.min_tokens
            and self.num_owed == 1
            and not self.owes_prompt_logprobs
            and not self.num_candidates
            and params.repetition_detection is None  # it looks at every token
        )

    def sibling(self, seq_id: int, index: int) -> Seat:
        """Sample `index` of the same request, with the same tokens so far; its blocks are still to be shared."""
        other = Seat(seq_id, self.request, index, self.tokens.copy(), account=self.account, indices=(index,))
        other.place, other.turn = (*self.place[:2], index), (*self.turn[:2], index)
        other.num_cached, other.num_told, other.started = self.num_cached, self.num_told, True
        other.num_shared = self.num_prompt
        other.company, other.num_candidates = self.company, self.num_candidates
        return other

    def _next_draw(self) -> Draw:
        # One object serves many steps: its history is the live list, from which it derives its position.
        banned = self._banned_ids() if self.request.params.min_tokens else ()
        draw = self.draw
        if draw is None or draw.indices != self.indices or draw.banned_ids != banned:
            request, num = self.request, self.num_candidates
            form, bad = request.constraint, request.bad_sequences
            draw = Draw(request.params, self.indices, self.tokens, self.num_prompt, banned, form, num, bad)
            self.draw = draw
        return draw

    def _banned_ids(self) -> tuple[int, ...]:
        params = self.request.params
        if self.num_output >= params.min_tokens:
            return ()
        ends = () if params.ignore_eos else self.request.eos_ids
        return (*ends, *(params.stop_token_ids or ()))
