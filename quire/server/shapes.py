"""What answers look like on the wire: OpenAI's objects as structs, encoded by msgspec.

Fields that are UNSET are left out. Chat and completions share what is the same in both.

Knows: OpenAI's shapes (and vLLM's `token_ids`, `prompt_token_ids`, `prompt_logprobs`). Does not know: how they come
about.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType


class PromptDetails(msgspec.Struct, frozen=True):
    """Part of `Usage`."""

    cached_tokens: int


class OutputDetails(msgspec.Struct, frozen=True):
    """Part of `Usage`, where the model reasons."""

    reasoning_tokens: int


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one request; the token that ended a sample counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: OutputDetails | UnsetType = UNSET


class TopLogprob(msgspec.Struct, frozen=True):
    """One of the likeliest tokens at a place."""

    token: str
    logprob: float
    bytes: list[int]


class ChatLogprob(msgspec.Struct, frozen=True):
    """One token of a chat answer."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChatLogprobs(msgspec.Struct, frozen=True):
    """Logprobs of a chat choice."""

    content: list[ChatLogprob]
    refusal: None = None


class PromptLogprob(msgspec.Struct, frozen=True):
    """One token at a place of the prompt, as vLLM tells it; `rank` 1 is the likeliest."""

    logprob: float
    rank: int
    decoded_token: str


class FunctionDelta(msgspec.Struct, frozen=True):
    """What a chunk adds to a call: its name once, then pieces of its arguments."""

    arguments: str
    name: str | UnsetType = UNSET


class CallDelta(msgspec.Struct, frozen=True):
    """News of one call; id and type come once, with the name."""

    index: int
    function: FunctionDelta
    id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET


class ChatDelta(msgspec.Struct, frozen=True):
    """What a chunk adds to a message. Reasoning goes by both names that clients read."""

    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: tuple[CallDelta, ...] | UnsetType = UNSET


class ChatChunkChoice(msgspec.Struct, frozen=True):
    """One choice's news in a chunk."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None
    token_ids: tuple[int, ...] | UnsetType = UNSET


class ChatChunk(msgspec.Struct, frozen=True):
    """One server-sent event of a chat."""

    id: str
    created: int
    model: str
    choices: tuple[ChatChunkChoice, ...]
    object: str = "chat.completion.chunk"
    system_fingerprint: str | None = None
    service_tier: str | UnsetType = UNSET
    usage: Usage | UnsetType | None = UNSET
    prompt_token_ids: tuple[int, ...] | UnsetType = UNSET
    prompt_logprobs: list[msgspec.Raw] | UnsetType = UNSET


class Function(msgspec.Struct, frozen=True):
    """What is called; `arguments` is JSON text."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct, frozen=True):
    """One whole call."""

    id: str
    function: Function
    type: str = "function"


class ChatMessage(msgspec.Struct, frozen=True):
    """The whole message; `content` is null where there are calls and nothing else."""

    role: str
    content: str | None
    refusal: None = None
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: list[ToolCall] | UnsetType = UNSET


class ChatChoice(msgspec.Struct, frozen=True):
    """One whole choice."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: str | None
    token_ids: list[int] | UnsetType = UNSET


class ChatCompletion(msgspec.Struct, frozen=True):
    """The whole answer of a chat."""

    id: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    object: str = "chat.completion"
    system_fingerprint: str | None = None
    service_tier: str | UnsetType = UNSET
    prompt_token_ids: tuple[int, ...] | UnsetType = UNSET
    prompt_logprobs: list[msgspec.Raw] | UnsetType = UNSET


class TextLogprobs(msgspec.Struct, frozen=True):
    """Logprobs of a completions choice: parallel lists, an entry a token; null for the first echoed token.

    An echoed prompt may be long: `top_logprobs` are kept as JSON, {text: logprob} or null.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[msgspec.Raw]
    text_offset: list[int]


class TextChoice(msgspec.Struct, frozen=True):
    """One choice of a completion, in a chunk or whole."""

    index: int
    text: str
    logprobs: TextLogprobs | None = None
    finish_reason: str | None = None
    prompt_token_ids: tuple[int, ...] | UnsetType = UNSET
    token_ids: tuple[int, ...] | UnsetType = UNSET
    prompt_logprobs: list[msgspec.Raw] | UnsetType = UNSET


class TextCompletion(msgspec.Struct, frozen=True):
    """A chunk of a completion, or the whole: OpenAI gives both the same shape."""

    id: str
    created: int
    model: str
    choices: tuple[TextChoice, ...]
    object: str = "text_completion"
    system_fingerprint: str | None = None
    service_tier: str | UnsetType = UNSET
    usage: Usage | UnsetType | None = UNSET


Chunk = ChatChunk | TextCompletion
Whole = ChatCompletion | TextCompletion


def encode(shape: object) -> bytes:
    """JSON without spaces, UTF-8."""
    return msgspec.json.encode(shape)


def event(shape: object) -> bytes:
    """One server-sent event. Line separators that some clients split at (NEL, U+2028, U+2029) go out escaped."""
    data = encode(shape)
    if b"\xe2\x80" in data:
        data = data.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    if b"\xc2\x85" in data:
        data = data.replace(b"\xc2\x85", b"\\u0085")
    return b"data: " + data + b"\n\n"


DONE = b"data: [DONE]\n\n"
