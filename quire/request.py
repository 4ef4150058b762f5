"""What was asked (`Request`) and how far we are (`Sequence`).

Knows: ids, numbers and their ranges. Does not know: text models, arrays, HTTP, or who runs next.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from quire.beams import Beams, check_searched
from quire.errors import RequestError, UnsupportedField
from quire.sampling_params import SamplingParams, check_constrained, check_integer, check_number

__all__ = [
    "Constraint",
    "Finish",
    "MAX_DEADLINE_MS",
    "MAX_PRIORITY",
    "MAX_WEIGHT",
    "Request",
    "Resumed",
    "SamplingParams",
    "Sequence",
    "check_constrained",
]

MAX_PRIORITY = 100
MAX_WEIGHT = 1e6
MAX_DEADLINE_MS = 3_600_000


class Finish(str, Enum):
    """Why a sample ended. The values are what OpenAI's clients and vLLM's users read."""

    STOP = "stop"  # end of text, a stop id, or a stop string
    LENGTH = "length"  # max_tokens, or the model's context
    ABORT = "abort"  # the client went away
    ERROR = "error"  # its computation went wrong
    REPETITION = "repetition"  # it only repeated itself, and `repetition_detection` was asked for


@dataclass(frozen=True, slots=True)
class Constraint:
    """What an answer must be, as whoever computes masks takes it; nobody else looks inside.

    `grammar` is text for llguidance (`structured/source.py` writes it); `owner` is on whose account it is kept.
    """

    grammar: str
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Resumed:
    """How far a request had come when its engine was lost, as whoever reads its answer knows it: from there it goes on.

    `samples` are (index, tokens told) of those that go on; a sample that is not among them has ended. `num_prompt_told`
    prompt tokens after the first have had their log probabilities told. `num_cached` is what was told of the prefix
    cache, None where nothing was told yet. A search begins anew: it tells nothing before its end.
    """

    samples: tuple[tuple[int, tuple[int, ...]], ...]
    num_prompt_told: int = 0
    num_cached: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One admitted request: everything valid, every default resolved.

    `params.seed` and `params.max_tokens` are never None here. `cache_salt` separates prefix caches; requests share
    blocks only under the same salt, but for those of the prompt's first `num_public_tokens`. `eos_ids` end a sample
    unless `params.ignore_eos`. `tenant` is who is to be served fairly beside others, by `weight`; of a tenant's
    requests the one of lower `priority` is served sooner. With `flex` it is served by what those without it leave
    idle, and by nothing else. Its first token is of use until `deadline_s` on the engine's steady clock. A job of
    several requests `leads` with one, whose promise holds for all. A `constraint` decides which tokens may be drawn;
    `params.structured_outputs`, of which it was made, is None here. With `beams` nothing is drawn: the answers are the
    `params.n` best sequences of a search.
    No token of an answer completes one of `bad_sequences`, of which there is at least one for each of the params' bad
    words. With `resumed` it was taken in before, by an engine that is gone, and goes on after what was told.
    """

    id: str
    prompt: tuple[int, ...]
    params: SamplingParams
    eos_ids: tuple[int, ...] = ()
    cache_salt: bytes = b""
    tenant: str = ""
    weight: float = 1.0
    priority: int = 0
    flex: bool = False
    deadline_s: float | None = None
    leads: bool = True
    constraint: Constraint | None = None
    beams: Beams | None = None
    bad_sequences: tuple[tuple[int, ...], ...] = ()
    resumed: Resumed | None = None
    num_public_tokens: int = 0

    def __post_init__(self) -> None:
        if not self.prompt:
            raise RequestError("the prompt holds no tokens", allowed="at least one token", param="prompt")
        if self.params.seed is None or self.params.max_tokens is None:
            raise RequestError("a request needs a seed and a max_tokens before it is submitted", param="seed")
        if self.constraint is not None:
            check_constrained(self.params)
        if self.beams is not None:
            self._check_search(self.beams)
        self._check_allowed()
        if self.resumed is not None:
            self._check_resumed(self.resumed)
        check_integer("num_public_tokens", self.num_public_tokens, 0, len(self.prompt))
        check_integer("priority", self.priority, -MAX_PRIORITY, MAX_PRIORITY)
        check_number("weight", self.weight, 0.0, MAX_WEIGHT, open_low=True)

    def _check_allowed(self) -> None:
        """Refuse an answer that could not begin, and one that could not end where its form ends."""
        allowed = self.params.allowed_token_ids
        if allowed is None and not self.bad_sequences:
            return
        never = {tokens[0] for tokens in self.bad_sequences if len(tokens) == 1}
        what = "bad_words" if allowed is None else "allowed_token_ids"
        if self.constraint is not None and self.eos_ids:
            ends = set(self.eos_ids) - never
            if not (ends if allowed is None else ends.intersection(allowed)):
                raise RequestError(
                    f"{what} leaves no end of text, with which structured outputs end",
                    hint=f"Allow one of {', '.join(map(str, self.eos_ids))}.",
                    param=what,
                )
        if allowed is None:
            return
        if self.params.min_tokens:
            never.update(self.params.stop_token_ids or (), () if self.params.ignore_eos else self.eos_ids)
        if never.issuperset(allowed):
            raise RequestError(
                "allowed_token_ids, without those that bad_words or min_tokens forbid, leaves no token",
                param="allowed_token_ids",
            )

    @property
    def num_rows(self) -> int:
        """Sequences that go on side by side: samples, or the beams of a search."""
        return self.params.n if self.beams is None else self.beams.width

    @property
    def max_tokens(self) -> int:
        """The most tokens a sample may produce."""
        return self.params.max_tokens or 0

    @property
    def max_total_tokens(self) -> int:
        """The longest a sample of this request can become, prompt included."""
        return len(self.prompt) + self.max_tokens

    def _check_resumed(self, resumed: Resumed) -> None:
        """Refuse to go on where the request could not be."""
        indices = [index for index, _ in resumed.samples]
        if not indices or sorted({*indices}) != indices or indices[0] < 0 or indices[-1] >= self.params.n:
            raise RequestError("a request goes on with samples that it does not have", got=indices, param="resumed")
        num_most = max([len(tokens) for _, tokens in resumed.samples])
        if num_most >= self.max_tokens or not 0 <= resumed.num_prompt_told < len(self.prompt):
            raise RequestError("a request that goes on was told more than there is", got=num_most, param="resumed")

    def _check_search(self, beams: Beams) -> None:
        check_searched(self.params)
        if self.constraint is not None:
            raise UnsupportedField("beam search takes no structured outputs", param="structured_outputs")
        if self.params.n > beams.width:
            raise RequestError(
                "a beam search cannot return more sequences than it is wide",
                got=self.params.n,
                allowed=f"1 to {beams.width}",
                param="n",
            )


@dataclass(slots=True, eq=False)
class Sequence:
    """One sample of a request on its way: `tokens` is the prompt and what came after it.

    0 ........ num_computed ........ len(tokens)
    |-- K and V in `blocks` --|-- owed to the model --|
    A sequence is served when it owes exactly nothing but its next draw: computed tokens catch up with tokens.
    """

    id: int
    request: Request
    index: int = 0
    tokens: list[int] = field(default_factory=list)
    num_computed: int = 0
    num_cached: int = 0
    blocks: list[int] = field(default_factory=list)

    @property
    def num_prompt(self) -> int:
        """Tokens of the prompt."""
        return len(self.request.prompt)

    @property
    def num_output(self) -> int:
        """Tokens drawn so far."""
        return len(self.tokens) - len(self.request.prompt)

    @property
    def num_owed(self) -> int:
        """Tokens whose K and V are still to be computed."""
        return len(self.tokens) - self.num_computed

    def finish_after(self, token: int) -> Finish | None:
        """Why this sequence ends with `token`, which has just been appended; None if it goes on."""
        params = self.request.params
        if self.num_output >= max(params.min_tokens, 1):
            if token in self.request.eos_ids and not params.ignore_eos:
                return Finish.STOP
            if token in (params.stop_token_ids or ()):
                return Finish.STOP
        return Finish.LENGTH if self.num_output >= self.request.max_tokens else None
