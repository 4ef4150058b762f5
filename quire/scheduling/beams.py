"""Knows: which sequences a beam search goes on with, which have ended, and when it is over: pure functions of numbers.

    running     |--a--| |--b--|            each with the likeliest tokens that may follow it
                  / \\      |
    candidates  a1   a2   b1 (an end)      by score, of two alike the earlier parent's, then the lower token id
    running     a1   a2                   the best `width` that go on;  b1 counts if it is among the best `width` of all

The rules are those of transformers 5 (`generate` with num_beams and no sampling). Does not know: seats, blocks, steps.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from typing import NamedTuple

from quire.beams import Beams
from quire.request import Finish
from quire.step import LEAST_LOGPROB, TokenLogprob


class Candidate(NamedTuple):
    """Running sequence `parent` with one more token; `score` is the sum of its natural-log probabilities."""

    score: float
    parent: int
    token: int
    logprob: float


@dataclass(frozen=True, slots=True)
class Ended:
    """A sequence that has ended: its tokens and what is told of them, if anything is. `score` is by its length."""

    score: float
    tokens: tuple[int, ...]
    told: tuple[TokenLogprob, ...]
    finish: Finish


@dataclass(slots=True)
class Best:
    """The best sequences that have ended, best first, at most as many as the search is wide; of two alike the earlier.

    A search runs up to `max_tokens` tokens; `end_ids` end a sequence.
    """

    beams: Beams
    max_tokens: int
    end_ids: frozenset[int]
    ended: list[Ended] = field(default_factory=list)

    def take(self, sequence: Ended) -> None:
        """`sequence` has ended."""
        insort(self.ended, sequence, key=lambda each: -each.score)
        del self.ended[self.beams.width :]

    def is_over(self, best_running: float, num_tokens: int) -> bool:
        """True if the search ends while sequences of `num_tokens` run, the best of them at `best_running`."""
        beams = self.beams
        if len(self.ended) < beams.width:
            return False
        if beams.early_stopping is True:
            return True
        longest = self.max_tokens if beams.early_stopping == "never" and beams.length_penalty > 0 else num_tokens
        return not beams.score(best_running, longest) > self.ended[-1].score

    def split(self, ranked: SequenceOf[Candidate], num_tokens: int) -> tuple[list[Candidate], list[Candidate]]:
        """Of candidates of `num_tokens`, best first: those that go on, and those that have ended and count."""
        width = self.beams.width
        if num_tokens >= self.max_tokens:
            return [], list(ranked[:width])
        ended = [each for each in ranked[:width] if each.token in self.end_ids]
        return [each for each in ranked if each.token not in self.end_ids][:width], ended


def num_wanted(width: int, num_ends: int) -> int:
    """Likeliest tokens of each running sequence that must be known: enough to go on with if all its ends are best."""
    return max(2, 1 + num_ends) * width


def ranked(scores: SequenceOf[float], following: SequenceOf[TokenLogprob], banned: Collection[int]) -> list[Candidate]:
    """Every candidate, best first: sequence i stands at `scores[i]` and is followed by `following[i].top`."""
    found = [
        Candidate(score + logprob, parent, token, logprob)
        for parent, (score, entry) in enumerate(zip(scores, following, strict=True))
        for token, logprob in entry.top
        if logprob > LEAST_LOGPROB and token not in banned
    ]
    return sorted(found, key=lambda each: (-each.score, each.parent, each.token))


def places(parents: SequenceOf[int], num_seats: int) -> list[int]:
    """The seat of each sequence, whose parent sat at `parents[i]`: the first of a parent stays in its seat, others take
    those of sequences that do not go on, lowest first, then new ones (`num_seats`, ...)."""
    taken = set(parents)
    free = [seat for seat in range(num_seats + len(parents)) if seat not in taken]
    free.reverse()
    found: list[int] = []
    for parent in parents:
        found.append(parent if parent not in found else free.pop())
    return found
