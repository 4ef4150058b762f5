"""The messages of the loop: what one step computes (`Step`), what came of it (`StepResult`), what is told (`Delta`).

Knows: ids and numbers only. Does not know: arrays, text, or how any of it was decided.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

from quire.errors import GenerationFailed, IdOutOfRange, NotFinite, NothingAllowed, QuireError, StepFailed
from quire.request import Constraint, Finish, SamplingParams

LEAST_LOGPROB = -9999.0  # OpenAI's "very unlikely": told where the model says less, minus infinity above all
NOTHING_ALLOWED = "no token may be drawn: bans, bad words, allowed ids and the form leave none"
LOGITS_NOT_FINITE = "the model's logits are not finite"
KV_NOT_FINITE = "keys or values of its tokens are not finite"
ID_OUT_OF_RANGE = "a token outside the vocabulary was drawn"
FORM_LOST = "the process that kept its grammar has gone away"  # whoever asked may ask again for what is left
STEP_RAISED = "its part of a step cannot be computed"
FAULTS: dict[str, type[GenerationFailed]] = {
    LOGITS_NOT_FINITE: NotFinite,
    KV_NOT_FINITE: NotFinite,
    ID_OUT_OF_RANGE: IdOutOfRange,
    STEP_RAISED: StepFailed,
}
"""Errors of results that a request cannot be blamed for, and what they are as exceptions."""


@dataclass(frozen=True, slots=True)
class Draw:
    """How to choose the token after a work's last one.

    `indices` are the sample indices that draw from this one row of logits; there are several only where a request
    with n > 1 leaves its prompt. `history` is every token so far, prompt first (read-only). `banned_ids` may not be
    drawn yet (end of text before min_tokens). The drawn token takes position `len(history)`. Under a `constraint` only
    what it allows after `history[num_prompt:]` may be drawn. For a search the `num_candidates` likeliest tokens are
    told, whatever else was asked for; the drawn one means nothing. No token may complete one
    of `bad_sequences` in the answer; nor, of course, is any drawn that `params` do not allow.
    """

    params: SamplingParams
    indices: tuple[int, ...]
    history: SequenceOf[int]
    num_prompt: int
    banned_ids: tuple[int, ...] = ()
    constraint: Constraint | None = None
    num_candidates: int = 0
    bad_sequences: tuple[tuple[int, ...], ...] = ()

    @property
    def is_restricted(self) -> bool:
        """Whether bad words or an allow-list forbid tokens."""
        return bool(self.bad_sequences) or self.params.allowed_token_ids is not None

    @property
    def position(self) -> int:
        """Absolute position of the token to be drawn: with seed and index, the key of its random number."""
        return len(self.history)

    @property
    def num_top(self) -> int | None:
        """Likeliest tokens to be told; None without log probabilities."""
        return self.num_candidates or self.params.logprobs


@dataclass(slots=True)  # nobody changes one; freezing would cost 0.6 us each, and a step makes hundreds
class Work:
    """One sequence's grant: compute `tokens` at positions `start`, `start + 1`, ...

    `block_table[p // block_size]` holds position p, for every p below `start + len(tokens)`; it is the sequence's own
    list, read-only until the step is settled. With `draw`, the last token's logits are sampled. With
    `prompt_logprobs = k`, every row whose successor is a prompt token reports that successor and the k best.

    A work is good until the next step is scheduled: one that only goes on by a token is then the same object again.
    """

    seq_id: int
    tokens: SequenceOf[int]
    start: int
    block_table: SequenceOf[int]
    draw: Draw | None = None
    prompt_logprobs: int | None = None
    successors: SequenceOf[int] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One launch of the model. `copies` (source, destination) are done before anything is computed."""

    id: int
    works: tuple[Work, ...]
    copies: tuple[tuple[int, int], ...] = ()

    @property
    def num_tokens(self) -> int:
        """Rows that the model computes."""
        return sum(len(work.tokens) for work in self.works)


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Natural-log probability of `token` under the raw logits, and the k likeliest as (id, logprob), best first.

    `rank` is the token's place among all: 1 is the likeliest. Log probabilities are finite, at least `LEAST_LOGPROB`.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    rank: int = 1


@dataclass(frozen=True, slots=True)
class WorkResult:
    """What came of one work: one token per index of its draw, or `error` if it went wrong.

    `forced` tokens follow the one that was drawn without being drawn: the draw's constraint allows no others.
    """

    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    error: str | None = None
    forced: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class StepResult:
    """One `WorkResult` for each work of the step, in the step's order."""

    works: tuple[WorkResult, ...]


@dataclass(slots=True)  # nobody changes one; freezing would cost 0.8 us each, and a step makes hundreds
class Delta:
    """News of one sample: what came since the last delta.

    `finish` is set exactly once per sample, on its last delta. `stop_token` is the id that ended it, if one did.
    `prompt_logprobs` come in order, on sample 0, for prompt tokens 1, 2, ... (the first has none).
    `num_cached` counts prompt tokens that came from the prefix cache.
    """

    request_id: str
    index: int
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    num_cached: int = 0
    finish: Finish | None = None
    stop_token: int | None = None
    error: str | None = None


def failure(reason: str | None) -> QuireError:
    """The `error` of a delta as an exception: the caller's to mend where what he forbids leaves nothing, else ours."""
    if reason == NOTHING_ALLOWED:
        return NothingAllowed(reason, hint="Allow more; where an answer has a form, allow the end of text too.")
    kind = FAULTS.get(reason or "", GenerationFailed)
    return kind("the computation of this request went wrong", got=reason)
