"""How to choose tokens (`SamplingParams`): names, ranges, and what contradicts what.

Knows: ids, numbers and their ranges. Does not know: text models, arrays, HTTP, or how a token is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

from quire.errors import RequestError
from quire.form import StructuredOutputsParams

MAX_N = 128
MAX_LOGPROBS = 20
MAX_STOPS = 16
MAX_STOP_CHARACTERS = 1024
MAX_LOGIT_BIAS = 1024
MAX_SEED = 2**63 - 1


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
        check_integer("n", self.n, 1, MAX_N)
        check_number("temperature", self.temperature, 0.0, 2.0)
        check_number("top_p", self.top_p, 0.0, 1.0, open_low=True)
        check_integer("top_k", self.top_k, -1, 2**31 - 1)
        check_number("min_p", self.min_p, 0.0, 1.0)
        check_number("presence_penalty", self.presence_penalty, -2.0, 2.0)
        check_number("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        check_number("repetition_penalty", self.repetition_penalty, 0.0, 10.0, open_low=True)
        check_optional_integer("seed", self.seed, -MAX_SEED - 1, MAX_SEED)
        check_optional_integer("max_tokens", self.max_tokens, 1, 2**31 - 1)
        check_integer("min_tokens", self.min_tokens, 0, 2**31 - 1)
        check_optional_integer("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        check_optional_integer("prompt_logprobs", self.prompt_logprobs, 0, MAX_LOGPROBS)
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


def check_number(name: str, value: object, low: float, high: float, open_low: bool = False) -> None:
    """Raise `RequestError` unless `value` is a finite number from `low` (above it with `open_low`) to `high`."""
    allowed = f"a number {'above' if open_low else 'from'} {low:g} {'up ' if open_low else ''}to {high:g}"
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise RequestError(f"{name} is not a finite number", got=value, allowed=allowed, param=name)
    if value > high or value < low or (open_low and value == low):
        raise RequestError(f"{name} is out of range", got=value, allowed=allowed, param=name)


def check_integer(name: str, value: object, low: int, high: int) -> None:
    """Raise `RequestError` unless `value` is an integer from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise RequestError(f"{name} is not an integer", got=value, allowed=f"{low} to {high}", param=name)
    if not low <= value <= high:
        raise RequestError(f"{name} is out of range", got=value, allowed=f"{low} to {high}", param=name)


def check_optional_integer(name: str, value: object, low: int, high: int) -> None:
    """The same, or None."""
    if value is not None:
        check_integer(name, value, low, high)


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
        check_integer(name, token, 0, 2**31 - 1)
    return tuple(ids or ())


def _bias(bias: Mapping[int, float] | None) -> dict[int, float] | None:
    if not bias:
        return None
    if len(bias) > MAX_LOGIT_BIAS:
        raise RequestError(
            "too many logit_bias entries", got=len(bias), allowed=f"at most {MAX_LOGIT_BIAS}", param="logit_bias"
        )
    for token, value in bias.items():
        check_integer("logit_bias", token, 0, 2**31 - 1)
        check_number("logit_bias", value, -100.0, 100.0)
    return dict(bias)
