"""Prompts to token ids: OpenAI's four shapes of `prompt`, and messages through the model's template.

Knows: the tokenizer and the template. Does not know: sampling, limits on the answer, engines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quire.errors import ContextLengthExceeded, RequestError
from quire.limits import MAX_PROMPTS
from quire.server.calling import Calling
from quire.server.messages import read_messages
from quire.server.schema import ChatFields
from quire.server.service import ASIDE_CHARACTERS, Service

TOOL_CHARACTERS = 512  # a tool's schema, roughly
MESSAGE_CHARACTERS = 64  # what reading a message costs besides its text, in characters of it


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt ready for the engine; `text` is what was given, None where ids were."""

    ids: tuple[int, ...]
    text: str | None = None


def split_prompts(prompt: object) -> list[str | list[int]]:
    """The list of prompts in `prompt`. Raises `RequestError` for any other shape."""
    if isinstance(prompt, str):
        return [prompt]
    if not isinstance(prompt, list) or not prompt:
        raise _shape(prompt)
    if all(type(item) is int for item in prompt):
        return [prompt]
    if len(prompt) > MAX_PROMPTS:
        raise RequestError("too many prompts", got=len(prompt), allowed=f"at most {MAX_PROMPTS}", param="prompt")
    if all(isinstance(item, str) for item in prompt):
        return prompt
    for item in prompt:
        if not isinstance(item, list) or not all(type(token) is int for token in item):
            raise _shape(item)
    return prompt


async def encode_prompt(
    service: Service, prompt: str | list[int], add_special_tokens: bool, must_fit: bool = False
) -> Prompt:
    """Ids of one prompt, in range; long text is encoded off the event loop, or refused unread if it `must_fit`."""
    if isinstance(prompt, str):
        if must_fit:
            _check_length(service, prompt, "prompt")
        ids = await service.aside(len(prompt), service.tokenizer.encode, prompt, add_special_tokens, "prompt")
        return Prompt(tuple(ids), prompt)
    check_ids(prompt, service.vocab_size, "prompt")
    return Prompt(tuple(prompt))


async def encode_chat(
    service: Service, body: ChatFields, calling: Calling, add_special_tokens: bool = False, must_fit: bool = False
) -> Prompt:
    """Ids of rendered messages and tools; the template has written the special tokens. `must_fit` as above."""
    service.spoken.check(calling)
    size = sum(_size(message.get("content")) for message in body.messages) + TOOL_CHARACTERS * len(calling.shown or ())
    return await service.aside(size, read_and_encode, service, body, calling, add_special_tokens, must_fit)


async def token_texts(service: Service, ids: Sequence[int]) -> list[str]:
    """What each token stands for, half characters as U+FFFD."""
    return await service.aside(len(ids), lambda: [service.tokenizer.token_text(token) for token in ids])


def check_ids(ids: Sequence[int], vocab_size: int, param: str) -> None:
    """Raise `RequestError` for an id that the model does not have."""
    if ids and (min(ids) < 0 or max(ids) >= vocab_size):
        outside = next(token for token in ids if not 0 <= token < vocab_size)
        raise RequestError("a token id is out of range", got=outside, allowed=f"0 to {vocab_size - 1}", param=param)


def _check_length(service: Service, text: str, param: str) -> None:
    """Refuse a text that no tokenizing can make fit: encoding 3 MB takes a processor for 5 s."""
    if len(text) >= ASIDE_CHARACTERS and (least := service.tokenizer.least_ids(text)) > service.plan.max_model_len:
        raise ContextLengthExceeded(
            "the prompt does not fit the model's context",
            got=f"{len(text)} characters, which are {least} prompt tokens at least",
            allowed=f"{service.plan.max_model_len} tokens, prompt and answer together",
            hint="Shorten the prompt.",
            param=param,
        )


def read_and_encode(
    service: Service, body: ChatFields, calling: Calling, add_special_tokens: bool, must_fit: bool = False
) -> Prompt:
    """`encode_chat` where it is called, however long that takes."""
    messages = read_messages(body.messages, service.settings.unknown_fields == "warn")
    text = _render(service, body, calling, messages)
    if must_fit:
        _check_length(service, text, "messages")
    return Prompt(tuple(service.tokenizer.encode(text, add_special_tokens, "messages")), text)


def _render(service: Service, body: ChatFields, calling: Calling, messages: list[dict[str, Any]]) -> str:
    opens_answer = body.add_generation_prompt and not body.continue_final_message
    kwargs = {**service.spoken.template_kwargs(body.reasoning_effort), **(body.chat_template_kwargs or {})}
    text = service.template.render(messages, tools=calling.shown, add_generation_prompt=opens_answer, kwargs=kwargs)
    return _cut_after_last(text, messages) if body.continue_final_message else text


def _cut_after_last(text: str, messages: list[dict[str, Any]]) -> str:
    """`text` up to the end of the last message's content, which the model then goes on with."""
    content = messages[-1].get("content")
    if messages[-1]["role"] != "assistant" or not isinstance(content, str) or not content.strip():
        raise RequestError(
            "continue_final_message needs a last message of the assistant with text", param="continue_final_message"
        )
    start = text.rfind(content.strip())
    if start < 0:
        raise RequestError(
            "the model's chat template does not show the last message's content", param="continue_final_message"
        )
    return text[: start + len(content.strip())]


def _size(content: object) -> int:
    """Characters of a message not read yet, roughly: what decides whether a thread is worth its while."""
    if isinstance(content, list):
        return sum(_size(part.get("text") if isinstance(part, dict) else None) for part in content)
    return MESSAGE_CHARACTERS + (len(content) if isinstance(content, str) else 0)


def _shape(got: object) -> RequestError:
    return RequestError(
        "prompt has a shape that is not known",
        got=got,
        allowed="a string, a list of strings, a list of token ids, or a list of lists of token ids",
        param="prompt",
    )
