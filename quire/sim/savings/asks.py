"""Knows: what is asked, when, and how long the answer will be. Does not know: who answers.

The scheduler is told of an answer's length only what a client would say: `most_tokens`. An answer that is shorter ends
with a token that no model draws, put in the place of what it drew last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quire.request import Request, SamplingParams
from quire.step import StepResult, Work, WorkResult

END = 2**31 - 1
ENDED = WorkResult((END,))


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, due `at_s` seconds after the first: it will get `num_output` tokens, at most `most_tokens`."""

    at_s: float
    prompt: Sequence[int]
    num_output: int
    most_tokens: int

    @property
    def num_slots(self) -> int:
        """KV slots that it holds in the end: its last token is drawn, never computed."""
        return len(self.prompt) + self.num_output - 1

    def request(self, name: str) -> Request:
        """As a client would ask. The seed, of which greedy drawing makes no use, carries where the answer ends."""
        known = self.num_output == self.most_tokens
        params = SamplingParams(temperature=0.0, seed=self.num_output, max_tokens=self.most_tokens, ignore_eos=known)
        return Request(name, tuple(self.prompt), params, () if known else (END,))


def ends(work: Work) -> bool:
    """True if what `work` draws is the last of an answer that is shorter than the most that was asked for."""
    draw = work.draw
    if draw is None or draw.params.ignore_eos:
        return False
    return len(draw.history) - draw.num_prompt + 1 >= (draw.params.seed or 0)


def with_ends(works: Sequence[Work], result: StepResult) -> StepResult:
    """`result`, with the last token of every answer that is over."""
    if not any(map(ends, works)):
        return result
    pairs = zip(works, result.works, strict=True)
    return StepResult(tuple([ENDED if ends(work) else outcome for work, outcome in pairs]))
