"""What `LLM` gives back, in vLLM's names and shapes.

Knows: texts, ids and numbers of finished answers, how many numbers are held. Does not know: how they came about.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import overload

from quire.errors import QuireError


@dataclass(frozen=True, slots=True)
class Logprob:
    """Natural-log probability of one token under the raw logits, finite; `rank` is its place among all, 1 the best."""

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


Logprobs = dict[int, Logprob]


class PromptLogprobs(Sequence[Logprobs | None]):
    """One entry a prompt token, None first; by id, the prompt's own token first, then the likeliest.

    A prompt of 32,768 tokens with the 20 likeliest of each would be 180 MB of dicts; held are 16 bytes for each of its
    numbers, 11 MB, and a dict is made when an entry is looked at. `list(...)` makes them all.
    """

    __slots__ = ("_decode", "_ends", "_ids", "_logprobs", "_ranks")

    def __init__(self, decode: Callable[[int], str]) -> None:
        self._decode = decode
        self._ids, self._ranks, self._logprobs = array("i"), array("i"), array("d")
        self._ends = array("q", [0])  # the first entry is empty

    def add(self, token: int, logprob: float, rank: int, top: Sequence[tuple[int, float]]) -> None:
        """The next prompt token, and the likeliest at its place, best first."""
        self._ids.append(token)
        self._ranks.append(rank)
        self._logprobs.append(logprob)
        for place, (other, value) in enumerate(top, start=1):
            if other != token:
                self._ids.append(other)
                self._ranks.append(place)
                self._logprobs.append(value)
        self._ends.append(len(self._ids))

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, place: int) -> Logprobs | None: ...

    @overload
    def __getitem__(self, place: slice) -> list[Logprobs | None]: ...

    def __getitem__(self, place: int | slice) -> Logprobs | list[Logprobs | None] | None:
        numbers = range(len(self))[place]
        return self._entry(numbers) if isinstance(numbers, int) else [self._entry(number) for number in numbers]

    def _entry(self, number: int) -> Logprobs | None:
        if number == 0:
            return None
        where = range(self._ends[number - 1], self._ends[number])
        return {self._ids[i]: Logprob(self._logprobs[i], self._ranks[i], self._decode(self._ids[i])) for i in where}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (PromptLogprobs, list)) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<log probabilities of {len(self)} prompt tokens>"


@dataclass(slots=True)
class CompletionOutput:
    """One sample. `token_ids` include the id that ended it; `text` does not show it.

    `finish_reason` is stop, length, repetition, abort or error; `stop_reason` is the stop string or stop id, None at
    end of text. `error` says what went wrong, where it did: other samples and prompts are not touched by it.
    """

    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    cumulative_logprob: float | None = None
    logprobs: list[Logprobs] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    error: QuireError | None = None


@dataclass(slots=True)
class RequestOutput:
    """One prompt and its samples. `prompt_logprobs[0]` is None: nothing comes before the first token."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    prompt_logprobs: Sequence[Logprobs | None] | None = None
    num_cached_tokens: int = 0

    @property
    def finished(self) -> bool:
        """True when every sample has ended."""
        return all(output.finish_reason is not None for output in self.outputs)


@dataclass(slots=True)
class BeamSearchSequence:
    """One sequence of a beam search. `tokens` and `text` begin with the prompt and leave out the end of text, unless it
    was asked for; `logprobs` and `cum_logprob` are of the tokens behind the prompt, that end included."""

    tokens: list[int]
    logprobs: list[Logprobs]
    cum_logprob: float
    text: str
    finish_reason: str | None = None
    stop_reason: int | str | None = None


@dataclass(slots=True)
class BeamSearchOutput:
    """The sequences that a beam search found for one prompt, best first."""

    sequences: list[BeamSearchSequence]
