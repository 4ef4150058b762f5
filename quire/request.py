"""What was asked (`SamplingParams`, `Request`) and how far we are (`Sequence`).

Knows: ids, numbers and their ranges. Does not know: text models, arrays, HTTP, or who runs next.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from enum import Enum

from quire.errors import RequestError
from quire.form import StructuredOutputsParams

MAX_N = 128
MAX_LOGPROBS = 20
MAX_STOPS = 16
MAX_STOP_CHARACTERS = 1024
MAX_LOGIT_BIAS = 1024
MAX_SEED = 2**63 - 1
MAX_PRIORITY = 100
MAX_WEIGHT = 1e6
MAX_DEADLINE_MS = 3_600_000


class Finish(str, Enum):
    """Why a sample ended. The values are what OpenAI's clients and vLLM's users read."""

    STOP = "stop"  # end of text, a stop id, or a stop string
    LENGTH = "length"  # max_tokens, or the model's context
    ABORT = "abort"  # the client went away
    ERROR = "error"  # its computation went wrong


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to choose tokens; field names and meanings are vLLM's.

    A value out of range raises `RequestError` with `param` set. `seed=None` means that the edge gives one;
    `max_tokens=None` means up to the model's context.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] | None = None
    seed: int | None = None
    stop: SequenceOf[str] | str | None = None
    stop_token_ids: SequenceOf[int] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    skip_special_tokens: bool = True
    structured_outputs: StructuredOutputsParams | None = None

    def __post_init__(self) -> None:
        _integer("n", self.n, 1, MAX_N)
        _number("temperature", self.temperature, 0.0, 2.0)
        _number("top_p", self.top_p, 0.0, 1.0, open_low=True)
        _integer("top_k", self.top_k, -1, 2**31 - 1)
        _number("min_p", self.min_p, 0.0, 1.0)
        _number("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _number("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _number("repetition_penalty", self.repetition_penalty, 0.0, 10.0, open_low=True)
        _optional_integer("seed", self.seed, -MAX_SEED - 1, MAX_SEED)
        _optional_integer("max_tokens", self.max_tokens, 1, 2**31 - 1)
        _integer("min_tokens", self.min_tokens, 0, 2**31 - 1)
        _optional_integer("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        _optional_integer("prompt_logprobs", self.prompt_logprobs, 0, MAX_LOGPROBS)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise RequestError(
                "min_tokens is larger than max_tokens",
                got=self.min_tokens,
                allowed=f"0 to {self.max_tokens}",
                param="min_tokens",
            )
        object.__setattr__(self, "stop", _stops(self.stop))
        object.__setattr__(self, "stop_token_ids", _ids("stop_token_ids", self.stop_token_ids))
        object.__setattr__(self, "logit_bias", _bias(self.logit_bias))

    @property
    def greedy(self) -> bool:
        """True where the likeliest token is taken and no random number is drawn."""
        return self.temperature == 0.0

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The stop strings as a tuple, whatever shape they were given in."""
        return tuple(self.stop or ())


@dataclass(frozen=True, slots=True)
class Constraint:
    """What an answer must be, as whoever computes masks takes it; nobody else looks inside.

    `grammar` is text for llguidance (`structured/source.py` writes it); `owner` is on whose account it is kept.
    """

    grammar: str
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """One admitted request: everything valid, every default resolved.

    `params.seed` and `params.max_tokens` are never None here. `cache_salt` separates prefix caches; requests share
    blocks only under the same salt. `eos_ids` end a sample unless `params.ignore_eos`. `tenant` is who is to be served
    fairly beside others, by `weight`; of a tenant's requests the one of lower `priority` is served sooner. With
    `flex` it is served by what those without it leave idle, and by nothing else. Its first token is of use until
    `deadline_s` on the engine's steady clock. A job of several requests `leads` with one, whose promise holds for all.
    A `constraint` decides which tokens may be drawn; `params.structured_outputs`, of which it was made, is None here.
    """

    id: str
    prompt: tuple[int, ...]
    params: SamplingParams
    eos_ids: tuple[int, ...] = ()
    cache_salt: str = ""
    tenant: str = ""
    weight: float = 1.0
    priority: int = 0
    flex: bool = False
    deadline_s: float | None = None
    leads: bool = True
    constraint: Constraint | None = None

    def __post_init__(self) -> None:
        if not self.prompt:
            raise RequestError("the prompt holds no tokens", allowed="at least one token", param="prompt")
        if self.params.seed is None or self.params.max_tokens is None:
            raise RequestError("a request needs a seed and a max_tokens before it is submitted", param="seed")
        if self.constraint is not None:
            check_constrained(self.params)
        _integer("priority", self.priority, -MAX_PRIORITY, MAX_PRIORITY)
        _number("weight", self.weight, 0.0, MAX_WEIGHT, open_low=True)

    @property
    def max_tokens(self) -> int:
        """The most tokens a sample may produce."""
        return self.params.max_tokens or 0

    @property
    def max_total_tokens(self) -> int:
        """The longest a sample of this request can become, prompt included."""
        return len(self.prompt) + self.max_tokens


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


def check_constrained(params: SamplingParams) -> None:
    """Refuse what would keep a constrained answer from ending where its grammar ends."""
    if params.ignore_eos:
        raise RequestError(
            "ignore_eos contradicts structured outputs: they end where their form ends",
            allowed="false",
            param="ignore_eos",
        )
    if params.min_tokens:
        raise RequestError(
            "min_tokens contradicts structured outputs: they end where their form ends",
            got=params.min_tokens,
            allowed="0",
            hint="Ask for the length in the schema (minLength, minItems).",
            param="min_tokens",
        )


def _number(name: str, value: object, low: float, high: float, open_low: bool = False) -> None:
    allowed = f"a number {'above' if open_low else 'from'} {low:g} {'up ' if open_low else ''}to {high:g}"
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise RequestError(f"{name} is not a finite number", got=value, allowed=allowed, param=name)
    if value > high or value < low or (open_low and value == low):
        raise RequestError(f"{name} is out of range", got=value, allowed=allowed, param=name)


def _integer(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise RequestError(f"{name} is not an integer", got=value, allowed=f"{low} to {high}", param=name)
    if not low <= value <= high:
        raise RequestError(f"{name} is out of range", got=value, allowed=f"{low} to {high}", param=name)


def _optional_integer(name: str, value: object, low: int, high: int) -> None:
    if value is not None:
        _integer(name, value, low, high)


def _stops(stop: SequenceOf[str] | str | None) -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(stops) > MAX_STOPS:
        raise RequestError("too many stop strings", got=len(stops), allowed=f"at most {MAX_STOPS}", param="stop")
    for text in stops:
        if not isinstance(text, str) or not 1 <= len(text) <= MAX_STOP_CHARACTERS:
            raise RequestError(
                "a stop string is empty, too long or not text",
                got=text,
                allowed=f"1 to {MAX_STOP_CHARACTERS} characters",
                param="stop",
            )
    return stops


def _ids(name: str, ids: SequenceOf[int] | None) -> tuple[int, ...]:
    for token in ids or ():
        _integer(name, token, 0, 2**31 - 1)
    return tuple(ids or ())


def _bias(bias: Mapping[int, float] | None) -> dict[int, float] | None:
    if not bias:
        return None
    if len(bias) > MAX_LOGIT_BIAS:
        raise RequestError(
            "too many logit_bias entries", got=len(bias), allowed=f"at most {MAX_LOGIT_BIAS}", param="logit_bias"
        )
    for token, value in bias.items():
        _integer("logit_bias", token, 0, 2**31 - 1)
        _number("logit_bias", value, -100.0, 100.0)
    return dict(bias)
