"""How to choose tokens (`SamplingParams`): names, ranges, and what contradicts what.

Knows: ids, numbers and their ranges. Does not know: text models, arrays, HTTP, or how a token is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from typing import Any

from quire.errors import RequestError
from quire.form import StructuredOutputsParams
from quire.limits import (
    MAX_ALLOWED_TOKEN_IDS,
    MAX_BAD_WORD_CHARACTERS,
    MAX_BAD_WORDS,
    MAX_LOGIT_BIAS,
    MAX_LOGITS_PROCESSORS,
    MAX_LOGPROBS,
    MAX_N,
    MAX_PATTERN_COUNT,
    MAX_PATTERN_SIZE,
    MAX_STOP_CHARACTERS,
    MAX_STOP_TOKEN_IDS,
    MAX_STOPS,
)

MAX_SEED = 2**63 - 1
FLAGS = ("include_stop_str_in_output", "ignore_eos", "skip_special_tokens", "spaces_between_special_tokens")


@dataclass(frozen=True, slots=True)
class RepetitionDetectionParams:
    """When an answer is ended because it only repeats itself; field names and meanings are vLLM's.

    It ends, with the finish reason `repetition`, as soon as its last tokens are one pattern of `min_pattern_size` (0
    counts as 1) to `max_pattern_size` tokens, `min_count` times in a row, at least twice. `max_pattern_size` 0: never.
    """

    max_pattern_size: int = 0
    min_pattern_size: int = 0
    min_count: int = 0

    def __post_init__(self) -> None:
        check_integer("repetition_detection.max_pattern_size", self.max_pattern_size, 0, MAX_PATTERN_SIZE)
        check_integer("repetition_detection.min_pattern_size", self.min_pattern_size, 0, self.max_pattern_size)
        least = 2 if self.max_pattern_size else 0
        check_integer("repetition_detection.min_count", self.min_count, least, MAX_PATTERN_COUNT)


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to choose tokens; field names and meanings are vLLM's.

    A value out of range raises `RequestError` with `param` set. `seed=None` means that the edge gives one;
    `max_tokens=None` means up to the model's context. No token of an answer completes the tokens of a bad word, and
    none is outside `allowed_token_ids`. `logits_processors` (`quire.LogitsProcessor`) work where the model runs in the
    caller's process. `truncate_prompt_tokens` keeps a prompt's last tokens; -1: as many as leave room for the answer.
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
    bad_words: SequenceOf[str] | None = None
    allowed_token_ids: SequenceOf[int] | None = None
    repetition_detection: RepetitionDetectionParams | None = None
    logits_processors: SequenceOf[Any] | None = None
    truncate_prompt_tokens: int | None = None
    spaces_between_special_tokens: bool = True

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
        check_optional_integer("truncate_prompt_tokens", self.truncate_prompt_tokens, -1, 2**31 - 1)
        for name in FLAGS:
            _check_kind(name, getattr(self, name), bool, "true or false")
        if self.repetition_detection is not None:
            what = "a RepetitionDetectionParams"
            _check_kind("repetition_detection", self.repetition_detection, RepetitionDetectionParams, what)
        self._check_together()
        object.__setattr__(self, "stop", _stops(self.stop))
        object.__setattr__(self, "stop_token_ids", _stop_ids(self.stop_token_ids))
        object.__setattr__(self, "logit_bias", _bias(self.logit_bias))
        object.__setattr__(self, "bad_words", _bad_words(self.bad_words))
        object.__setattr__(self, "allowed_token_ids", _allowed(self.allowed_token_ids))
        object.__setattr__(self, "logits_processors", _processors(self.logits_processors))

    def _check_together(self) -> None:
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise RequestError(
                "min_tokens is larger than max_tokens",
                got=self.min_tokens,
                allowed=f"0 to {self.max_tokens}",
                param="min_tokens",
            )
        if self.truncate_prompt_tokens == 0:
            raise RequestError(
                "truncate_prompt_tokens leaves nothing of the prompt",
                got=0,
                allowed="-1, or 1 and more",
                param="truncate_prompt_tokens",
            )

    @property
    def greedy(self) -> bool:
        """True where the likeliest token is taken and no random number is drawn."""
        return self.temperature == 0.0

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The stop strings as a tuple, whatever shape they were given in."""
        return tuple(self.stop or ())

    @property
    def repetition(self) -> RepetitionDetectionParams | None:
        """What ends a repeating answer; None where nothing does."""
        asked = self.repetition_detection
        return asked if asked is not None and asked.max_pattern_size else None


def check_constrained(params: SamplingParams, form: str = "structured_outputs") -> None:
    """Refuse what would keep an answer, whose form the field `form` asks for, from ending where its grammar ends."""
    if params.ignore_eos:
        raise RequestError(
            f"ignore_eos contradicts {form}: such an answer ends where its form ends",
            allowed="false",
            param="ignore_eos",
        )
    if params.min_tokens:
        raise RequestError(
            f"min_tokens contradicts {form}: such an answer ends where its form ends",
            got=params.min_tokens,
            allowed="0",
            hint="Ask for the length in the schema (minLength, minItems).",
            param="min_tokens",
        )


def check_spaces(params: SamplingParams, puts_spaces: bool) -> None:
    """Refuse special tokens without spaces between them, where they are shown and the vocabulary puts some."""
    if puts_spaces and not params.spaces_between_special_tokens and not params.skip_special_tokens:
        raise RequestError(
            "this model's vocabulary puts spaces between all tokens, special ones too",
            allowed="true, or skip_special_tokens=true",
            param="spaces_between_special_tokens",
        )


def truncated(prompt: tuple[int, ...], params: SamplingParams, max_model_len: int, room: int) -> tuple[int, ...]:
    """What `truncate_prompt_tokens` leaves of `prompt`; -1 leaves all but `room` tokens of the model's context."""
    asked = params.truncate_prompt_tokens
    if asked is None:
        return prompt
    return prompt[-(max(max_model_len - room, 1) if asked == -1 else asked) :]


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


def _check_kind(name: str, value: object, kind: type | tuple[type, ...], allowed: str) -> None:
    if not isinstance(value, kind):
        raise RequestError(f"{name} is not {allowed}", got=value, allowed=allowed, param=name)


def _listed(name: str, value: object) -> tuple[Any, ...]:
    """The items of a list, or of what may stand for one."""
    if value is None:
        return ()
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise RequestError(f"{name} is not a list", got=value, allowed="a list", param=name)
    return tuple(value)


def _stops(stop: SequenceOf[str] | str | None) -> tuple[str, ...]:
    return _texts("stop", "stop string", stop, MAX_STOPS, MAX_STOP_CHARACTERS)


def _bad_words(words: SequenceOf[str] | None) -> tuple[str, ...]:
    return _texts("bad_words", "bad word", words, MAX_BAD_WORDS, MAX_BAD_WORD_CHARACTERS)


def _texts(
    name: str, what: str, texts: SequenceOf[str] | str | None, most: int, most_characters: int
) -> tuple[str, ...]:
    whole = (texts,) if isinstance(texts, str) else _listed(name, texts)
    if len(whole) > most:
        raise RequestError(f"too many {what}s", got=len(whole), allowed=f"at most {most}", param=name)
    for text in whole:
        if not isinstance(text, str) or not 1 <= len(text) <= most_characters:
            raise RequestError(
                f"a {what} is empty, too long or not text",
                got=text,
                allowed=f"1 to {most_characters} characters",
                param=name,
            )
    return whole


def _stop_ids(ids: SequenceOf[int] | None) -> tuple[int, ...]:
    whole = _ids("stop_token_ids", ids)
    if len(whole) > MAX_STOP_TOKEN_IDS:
        raise RequestError(
            "too many stop_token_ids", got=len(whole), allowed=f"at most {MAX_STOP_TOKEN_IDS}", param="stop_token_ids"
        )
    return whole


def _ids(name: str, ids: SequenceOf[int] | None) -> tuple[int, ...]:
    whole: tuple[int, ...] = _listed(name, ids)
    if whole and not (set(map(type, whole)) == {int} and min(whole) >= 0 and max(whole) < 2**31):
        for token in whole:  # one of them is wrong; looking at each alone takes time
            check_integer(name, token, 0, 2**31 - 1)
    return whole


def _allowed(ids: SequenceOf[int] | None) -> tuple[int, ...] | None:
    if ids is None:
        return None
    whole = _listed("allowed_token_ids", ids)
    if not 1 <= len(whole) <= MAX_ALLOWED_TOKEN_IDS:
        raise RequestError(
            "allowed_token_ids is empty or too long",
            got=len(whole),
            allowed=f"1 to {MAX_ALLOWED_TOKEN_IDS} ids",
            param="allowed_token_ids",
        )
    return _ids("allowed_token_ids", whole)


def _processors(processors: SequenceOf[Any] | None) -> tuple[Any, ...]:
    whole = _listed("logits_processors", processors)
    if len(whole) > MAX_LOGITS_PROCESSORS or not all(map(callable, whole)):
        raise RequestError(
            "logits_processors are too many, or not all callable",
            got=processors,
            allowed=f"at most {MAX_LOGITS_PROCESSORS} of quire.LogitsProcessor",
            param="logits_processors",
        )
    return whole


def _bias(bias: Mapping[int, float] | None) -> dict[int, float] | None:
    if bias is None:
        return None
    _check_kind("logit_bias", bias, Mapping, "a mapping of ids to numbers")
    if len(bias) > MAX_LOGIT_BIAS:
        raise RequestError(
            "too many logit_bias entries", got=len(bias), allowed=f"at most {MAX_LOGIT_BIAS}", param="logit_bias"
        )
    for token, value in bias.items():
        check_integer("logit_bias", token, 0, 2**31 - 1)
        check_number("logit_bias", value, -100.0, 100.0)
    return dict(bias) or None
