"""Features of a request, each with the law that its answers obey, alone or beside any other.

Knows: bodies, and what an answer must look like. Does not know: how answers come about.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from served import EOS, SPEC, TOKENIZER, Answer

from quire.text.bad_words import bad_sequences

PROMPT = "Once upon a time there was"
MESSAGES = [{"role": "user", "content": "Tell me about a fox."}]
MAX_TOKENS = 24
COMMA, PERIOD = (TOKENIZER.encode(text, add_special_tokens=False)[0] for text in ",.")
BAD = ["the", "lived", "was a"]
ALLOWED = [token for token in range(SPEC.vocab_size) if "w" not in TOKENIZER.token_text(token) or token == EOS]
CHOICES = ["a small fox", "a river", "none of them"]
PATTERN = "[ab]{3,6} [0-9]{2}"
SCHEMA = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": False}
FORM = {"name": "a", "schema": SCHEMA}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {**SCHEMA}}}
REPETITION = {"max_pattern_size": 3, "min_count": 2}


@dataclass
class Choice:
    """One choice, streamed or not. `text` is without the echoed prompt."""

    text: str = ""
    ids: list[int] = field(default_factory=list)
    finish: str | None = None
    logprobs: list[float | None] = field(default_factory=list)
    calls: list[Any] = field(default_factory=list)
    echoed: bool = False


@dataclass
class Told:
    """One answer in a form that does not depend on how it came."""

    body: dict[str, Any]
    choices: list[Choice]
    usage: dict[str, Any] | None
    first: dict[str, Any]

    def has(self, *names: str) -> bool:
        return any(name in self.body for name in names)

    @property
    def is_formed(self) -> bool:
        return self.has("response_format", "structured_outputs", "guided_choice", "tools")

    @property
    def ends_early(self) -> bool:
        """Something besides a form's end may end it with `stop`."""
        return self.has("stop", "stop_token_ids")


Law = Callable[[Told, Choice], None]


@dataclass(frozen=True)
class Feature:
    """`fields` ask for it; `law` holds for each choice. On `route` chat, completions, or both."""

    name: str
    fields: Mapping[str, Any]
    law: Law = lambda told, choice: None
    route: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


def n(told: Told, choice: Choice) -> None:
    assert len(told.choices) == 2


def bias(told: Told, choice: Choice) -> None:
    assert told.is_formed or COMMA not in choice.ids


def stop(told: Told, choice: Choice) -> None:
    if not told.has("min_tokens", "tools"):
        kept = choice.text[:-1] if told.has("include_stop_str_in_output") and choice.text.endswith("h") else choice.text
        assert "h" not in kept


def stop_ids(told: Told, choice: Choice) -> None:
    least = told.body.get("min_tokens", 0)
    assert PERIOD not in choice.ids[least:-1]
    if choice.ids and choice.ids[-1] == PERIOD:
        assert choice.finish == "stop"


def min_tokens(told: Told, choice: Choice) -> None:
    assert len(choice.ids) >= 6
    assert EOS not in choice.ids[:5] or told.has("ignore_eos")


def ignore_eos(told: Told, choice: Choice) -> None:
    assert choice.finish in ("length", "repetition") or told.ends_early


def max_tokens(told: Told, choice: Choice) -> None:
    assert len(choice.ids) <= 7
    if choice.finish == "length":
        assert len(choice.ids) == 7


def logprobs(told: Told, choice: Choice) -> None:
    known = [value for value in choice.logprobs if value is not None]
    num_prompt = told.usage["prompt_tokens"] if choice.echoed and told.usage else 0
    assert len(choice.logprobs) == len(choice.ids) + num_prompt or told.has("tools")
    assert all(math.isfinite(value) and value <= 1e-6 for value in known)
    assert len(known) == len(choice.logprobs) - (1 if choice.echoed else 0)


def echo(told: Told, choice: Choice) -> None:
    assert choice.echoed


def as_json(told: Told, choice: Choice) -> None:
    if choice.finish == "stop" and not told.ends_early:
        assert set(json.loads(choice.text)) == {"a"}


def as_pattern(told: Told, choice: Choice) -> None:
    if choice.finish == "stop" and not told.ends_early:
        assert re.fullmatch(PATTERN, choice.text)


def as_choice(told: Told, choice: Choice) -> None:
    if choice.finish == "stop" and not told.ends_early:
        assert choice.text in CHOICES
    elif not told.ends_early:
        assert any(text.startswith(choice.text) for text in CHOICES)


def tools(told: Told, choice: Choice) -> None:
    assert "<" not in choice.text
    if choice.finish == "tool_calls":
        assert [call["function"]["name"] for call in choice.calls] == ["look"]


def bad_words(told: Told, choice: Choice) -> None:
    for bad in bad_sequences(TOKENIZER, BAD):
        assert not any(tuple(choice.ids[at : at + len(bad)]) == bad for at in range(len(choice.ids)))


def allowed(told: Told, choice: Choice) -> None:
    assert set(choice.ids) <= set(ALLOWED)


def repetition(told: Told, choice: Choice) -> None:
    least = max(told.body.get("min_tokens", 0), 1)
    repeats = [
        count
        for count in range(least, len(choice.ids) + 1)
        for size in (1, 2, 3)
        if count >= 2 * size and choice.ids[count - size : count] == choice.ids[count - 2 * size : count - size]
    ]
    if choice.finish == "repetition":
        assert repeats[:1] == [len(choice.ids)]
    else:
        assert all(count == len(choice.ids) for count in repeats)


def special(told: Told, choice: Choice) -> None:
    if choice.finish == "length" and not (told.is_formed or told.has("stop")):
        assert choice.text.rstrip("\ufffd") == TOKENIZER.decode(choice.ids, False).rstrip("\ufffd")


def flex(told: Told, choice: Choice) -> None:
    assert told.first["service_tier"] == "flex"


def truncated(told: Told, choice: Choice) -> None:
    assert told.usage is None or told.usage["prompt_tokens"] == 3


def usage(told: Told, choice: Choice) -> None:
    assert told.usage is not None
    assert told.usage["completion_tokens"] == sum(len(each.ids) for each in told.choices) or told.has("tools")


FEATURES = (
    Feature("n", {"n": 2}, n),
    Feature("seed", {"seed": -7}),
    Feature("temperature 0", {"temperature": 0}),
    Feature("top_k", {"top_k": 600}),
    Feature("top_p", {"top_p": 0.7}),
    Feature("min_p", {"min_p": 0.1}),
    Feature("repetition_penalty", {"repetition_penalty": 1.3}),
    Feature("presence_penalty", {"presence_penalty": 1.5}),
    Feature("frequency_penalty", {"frequency_penalty": 1.1}),
    Feature("logit_bias", {"logit_bias": {str(COMMA): -100}}, bias),
    Feature("bad_words", {"bad_words": BAD}, bad_words),
    Feature("allowed_token_ids", {"allowed_token_ids": ALLOWED}, allowed),
    Feature("repetition_detection", {"repetition_detection": REPETITION}, repetition),
    Feature("stop", {"stop": ["h"]}, stop),
    Feature("stop_token_ids", {"stop_token_ids": [PERIOD]}, stop_ids),
    Feature("include_stop_str_in_output", {"include_stop_str_in_output": True}),
    Feature("min_tokens", {"min_tokens": 6}, min_tokens),
    Feature("max_tokens", {"max_tokens": 7}, max_tokens),
    Feature("ignore_eos", {"ignore_eos": True}, ignore_eos),
    Feature("logprobs", {"logprobs": 3}, logprobs),
    Feature("echo", {"echo": True}, echo, "completions"),
    Feature("prompt_logprobs", {"prompt_logprobs": 1}),
    Feature("use_beam_search", {"use_beam_search": True}),
    Feature("best_of", {"best_of": 3}, route="completions"),
    Feature("stream", {"stream": True}),
    Feature("stream_options", {"stream": True, "stream_options": {"include_usage": True}}, usage),
    Feature("response_format", {"response_format": {"type": "json_schema", "json_schema": FORM}}, as_json),
    Feature("structured_outputs", {"structured_outputs": {"regex": PATTERN}}, as_pattern),
    Feature("guided_choice", {"guided_choice": CHOICES}, as_choice),
    Feature("tools", {"tools": [TOOL], "tool_choice": "required"}, tools, "chat"),
    Feature("skip_special_tokens", {"skip_special_tokens": False}, special),
    Feature("spaces_between_special_tokens", {"spaces_between_special_tokens": False}),
    Feature("truncate_prompt_tokens", {"truncate_prompt_tokens": 3}, truncated),
    Feature("return_tokens_as_token_ids", {"return_tokens_as_token_ids": True}),
    Feature("cache_salt", {"cache_salt": "salt"}),
    Feature("service_tier", {"service_tier": "flex"}, flex),
    Feature("priority", {"priority": 3}),
    Feature("user", {"user": "somebody"}),
    Feature("deadline", {}, headers={"x-quire-deadline-ms": "600000"}),
)  # fmt: skip


def ask(one: Feature, other: Feature) -> tuple[str, dict[str, Any], dict[str, str]]:
    """Path, body and headers of a request that wants both."""
    fields = {**one.fields, **other.fields}
    headers = {"content-type": "application/json", **one.headers, **other.headers}
    common = {"max_tokens": MAX_TOKENS, "seed": 11, "temperature": 1.0, "return_token_ids": True}
    if "chat" in (one.route, other.route):
        if isinstance(fields.get("logprobs"), int):
            fields |= {"logprobs": True, "top_logprobs": 3}
        return "/v1/chat/completions", {"messages": MESSAGES, **common, **fields}, headers
    return "/v1/completions", {"prompt": PROMPT, **common, **fields}, headers


def read(answer: Answer, body: dict[str, Any]) -> Told:
    """A whole answer, or the pieces of one, folded."""
    is_stream = body.get("stream", False)
    if is_stream:
        events = answer.events()
        assert events.pop() == "[DONE]"
        parts = events
    else:
        parts = [answer.json()]
    choices: dict[int, Choice] = {}
    for part in parts:
        for told in part["choices"]:
            _add(choices.setdefault(told["index"], Choice()), told, body)
    usage = next((part["usage"] for part in reversed(parts) if part.get("usage")), None)
    return Told(body, [choices[index] for index in sorted(choices)], usage, parts[0])


def _add(choice: Choice, told: dict[str, Any], body: dict[str, Any]) -> None:
    said = told.get("message") or told.get("delta") or {}
    text = told.get("text") or said.get("content") or ""
    if body.get("echo") and not choice.echoed and text:
        prompt = TOKENIZER.decode(TOKENIZER.encode(PROMPT)[-3:]) if "truncate_prompt_tokens" in body else PROMPT
        assert text.startswith(prompt)
        text, choice.echoed = text[len(prompt) :], True
    choice.text += text
    choice.ids += told.get("token_ids") or []
    choice.calls += [call for call in said.get("tool_calls") or [] if call.get("function", {}).get("name")]
    choice.finish = told.get("finish_reason") or choice.finish
    listed = told.get("logprobs")
    if listed:
        entries = listed.get("content")
        choice.logprobs += listed["token_logprobs"] if entries is None else [entry["logprob"] for entry in entries]
