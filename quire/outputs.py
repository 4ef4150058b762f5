"""What `LLM` gives back, in vLLM's names and shapes.

Knows: texts, ids and numbers of finished answers. Does not know: how they came about.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Logprob:
    """Natural-log probability of one token under the raw logits; `rank` 1 is the best, None if not among the top."""

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


Logprobs = dict[int, Logprob]


@dataclass(slots=True)
class CompletionOutput:
    """One sample. `token_ids` include the id that ended it; `text` does not show it.

    `finish_reason` is stop, length, abort or error; `stop_reason` is the stop string or stop id, None at end of text.
    """

    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    cumulative_logprob: float | None = None
    logprobs: list[Logprobs] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None


@dataclass(slots=True)
class RequestOutput:
    """One prompt and its samples. `prompt_logprobs[0]` is None: nothing comes before the first token."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    prompt_logprobs: list[Logprobs | None] | None = None
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
