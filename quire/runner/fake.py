"""Knows: what every KV slot would hold, and so whether a step may read what it reads. Does not know: a model.

A runner for tests, demos and load tests. Tokens are a pure function of (seed, sample index, tokens so far), so that
outputs can be compared bit for bit; and instead of K and V each slot remembers the fingerprint of all tokens up to it:

    tokens        t0     t1      t2            one list per block, as the block tables say; a slot that is read and
    slots        f(t0)  f(t0 t1)  f(t0 t1 t2)  does not hold the fingerprint that its sequence needs is an error
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as SequenceOf

from quire.errors import InternalError
from quire.step import Draw, Step, StepResult, TokenLogprob, Work, WorkResult

EMPTY = -1
ROOT = 0
LOGPROB = -1.0

Choose = Callable[[Draw, int], int]


def choose_token(draw: Draw, index: int, vocab_size: int) -> int:
    """The token that sample `index` draws after `draw.history`; greedy samples of one history draw the same."""
    params, history = draw.params, draw.history
    key = (0, 0) if params.greedy else (params.seed, index)
    token = hash((*key, *history)) % vocab_size
    for candidate in range(token, token + vocab_size):
        if candidate % vocab_size not in draw.banned_ids:
            return candidate % vocab_size
    raise InternalError("every token of the vocabulary is banned", got=len(draw.banned_ids))


def likeliest(history: SequenceOf[int], count: int, vocab_size: int) -> TokenLogprob:
    """What may follow `history`, with log probabilities that depend on it alone (some are alike)."""
    scores = [(token, -0.01 - hash((*history, token)) % (64 * vocab_size) / vocab_size) for token in range(vocab_size)]
    best = tuple(sorted(scores, key=lambda each: (-each[1], each[0]))[:count])
    return TokenLogprob(*best[0], best)


class FakeRunner:
    """`run(step)` as the real runner does it, without a model.

    `choose(draw, index)` replaces the choice of tokens. Wrong prefix hits, missing copies, blocks reused too early and
    slots written twice raise `InternalError`. Log-probabilities, where asked for, are all -1.
    """

    def __init__(self, vocab_size: int = 256, block_size: int = 16, choose: Choose | None = None) -> None:
        self.vocab_size = vocab_size
        self.block_size = block_size
        self._choose = choose
        self._slots: dict[int, list[int]] = {}
        self._known: dict[int, list[int]] = {}

    def rest(self) -> None:
        """Nothing is held."""

    def run(self, step: Step) -> StepResult:
        """Copy, write, read and draw; one result for each work."""
        for source, destination in step.copies:
            self._slots[destination] = self._block(source).copy()
        needed = [self._prefix(work) for work in step.works]
        for work, prints in zip(step.works, needed, strict=True):
            self._expect(work, prints)
            _extend(prints, work.tokens)
        self._write(step, needed)
        for work, prints in zip(step.works, needed, strict=True):
            self._expect(work, prints)
        self._known = {work.seq_id: prints for work, prints in zip(step.works, needed, strict=True)}
        return StepResult(tuple([self._result(work, prints) for work, prints in zip(step.works, needed, strict=True)]))

    def _prefix(self, work: Work) -> list[int]:
        """Fingerprints of the tokens before `work.start`: from its history, from the last step, or as the slots say."""
        if work.draw is not None and work.draw.num_candidates:  # a beam: its past may be another one's by now
            return _extend([], work.draw.history[: work.start])
        known = self._known.get(work.seq_id)
        if known is not None and len(known) == work.start:
            return known
        if work.draw is not None:
            return _extend([], work.draw.history[: work.start])
        size = self.block_size
        blocks = work.block_table[: -(-work.start // size)]
        return [slot for block in blocks for slot in self._block(block)][: work.start]

    def _write(self, step: Step, needed: list[list[int]]) -> None:
        size = self.block_size
        written: set[int] = set()
        for work, prints in zip(step.works, needed, strict=True):
            for position in range(work.start, work.start + len(work.tokens)):
                block, offset = work.block_table[position // size], position % size
                if block * size + offset in written:
                    raise InternalError("a KV slot is written twice in one step", got=_where(work, position, block))
                written.add(block * size + offset)
                self._block(block)[offset] = prints[position]

    def _expect(self, work: Work, prints: list[int]) -> None:
        """Every slot below `len(prints)` holds what this sequence needs, or `InternalError`."""
        size = self.block_size
        for start in range(0, len(prints), size):
            block = work.block_table[start // size]
            part = prints[start : start + size]
            held = self._block(block)
            if held[: len(part)] != part or EMPTY in part:
                wrong = next(i for i, need in enumerate(part) if held[i] != need or need == EMPTY)
                raise InternalError("a KV slot does not hold what is read", got=_where(work, start + wrong, block))

    def _block(self, block: int) -> list[int]:
        return self._slots.setdefault(block, [EMPTY] * self.block_size)

    def _result(self, work: Work, prints: list[int]) -> WorkResult:
        told = tuple(_logprob(token, work.prompt_logprobs or 0) for token in work.successors)
        draw = work.draw
        if draw is None:
            return WorkResult(prompt_logprobs=told)
        if prints != _extend([], draw.history):
            raise InternalError("computed tokens are not the sequence's tokens", got=f"sequence {work.seq_id}")
        if draw.num_candidates:
            entry = likeliest(draw.history, draw.num_candidates, self.vocab_size)
            return WorkResult((entry.token,), (entry,), told)
        tokens = tuple([self._token(draw, index) for index in draw.indices])
        wanted = draw.params.logprobs
        logprobs = () if wanted is None else tuple(_logprob(token, wanted) for token in tokens)
        return WorkResult(tokens, logprobs, told)

    def _token(self, draw: Draw, index: int) -> int:
        return self._choose(draw, index) if self._choose else choose_token(draw, index, self.vocab_size)


def _extend(prints: list[int], tokens: SequenceOf[int]) -> list[int]:
    last = prints[-1] if prints else ROOT
    for token in tokens:
        last = hash((last, token)) & 0x7FFF_FFFF_FFFF_FFFF
        prints.append(last)
    return prints


def _logprob(token: int, num_top: int) -> TokenLogprob:
    return TokenLogprob(token, LOGPROB, ((token, LOGPROB),) if num_top else ())


def _where(work: Work, position: int, block: int) -> str:
    return f"sequence {work.seq_id}, position {position}, block {block}"
