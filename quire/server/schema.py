"""The bodies that the API takes, typed. Values are strict: "1" is not 1, true is not 1, 1.5 is not an integer.

Ranges are checked where the value is used (`SamplingParams`), so that `LLM` and the server agree on them.

Knows: names and types of implemented fields. Does not know: the other names (`fields.py`), tokens, engines.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from quire.errors import RequestError
from quire.server import fields
from quire.server.json_body import check_values


def _early(value: object) -> object:
    """true is not 1."""
    if not isinstance(value, (bool, str)):
        raise RequestError(
            "early_stopping is none of its values", got=value, allowed='true, false or "never"', param="early_stopping"
        )
    return value


def _texts(value: object) -> object:
    """OpenAI's `stop`: a string stands for a list of one."""
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return value
    if isinstance(value, str):
        return [value]
    raise RequestError("stop is neither a string nor a list of strings", got=value, param="stop")


def _bias(value: object) -> object:
    """JSON writes ids as strings: {"50256": -100}."""
    if not isinstance(value, dict):
        raise RequestError("logit_bias is not an object", got=value, allowed='{"<token id>": bias}', param="logit_bias")
    return {_bias_id(key): number for key, number in value.items()}


def _bias_id(key: str) -> int:
    if not (key.isascii() and key.isdigit() and len(key) <= 10):
        raise RequestError("a key of logit_bias is not a token id", got=key, allowed="digits", param="logit_bias")
    return int(key)


def _kwargs(value: object) -> object:
    if not isinstance(value, dict):
        raise RequestError("chat_template_kwargs is not an object", got=value, param="chat_template_kwargs")
    check_values(value, "chat_template_kwargs")
    return value


class Body(BaseModel):
    """What all bodies share: strict types, no surprises, nothing edited later."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, protected_namespaces=())


class StreamOptions(Body):
    """`stream_options`. Obfuscation pads chunks for OpenAI's own reasons; asking for it or not changes no text."""

    include_usage: bool = False
    include_obfuscation: bool = False
    continuous_usage_stats: bool = False


class RepetitionDetection(Body):
    """`repetition_detection`; what it means stands at `RepetitionDetectionParams`."""

    max_pattern_size: int = 0
    min_pattern_size: int = 0
    min_count: int = 0


class GenerationBody(Body):
    """Fields that chat and completions share; the second block is vLLM's, the third says what form answers have."""

    model: str | None = None
    n: int = 1
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Annotated[dict[int, float], BeforeValidator(_bias)] | None = None
    seed: int | None = None
    stop: Annotated[list[str], BeforeValidator(_texts)] | None = None
    max_tokens: int | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = None
    service_tier: Literal["auto", "default", "flex"] | None = None

    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True
    use_beam_search: bool = False
    length_penalty: float = 1.0
    early_stopping: Annotated[Literal[True, False, "never"], BeforeValidator(_early)] = False
    cache_salt: str | None = None
    priority: int = 0
    return_token_ids: bool = False
    return_tokens_as_token_ids: bool = False
    prompt_logprobs: int | None = None
    bad_words: list[str] | None = None
    allowed_token_ids: list[int] | None = None
    repetition_detection: RepetitionDetection | None = None
    truncate_prompt_tokens: int | None = None
    spaces_between_special_tokens: bool = True

    response_format: dict[str, Any] | None = None
    structured_outputs: dict[str, Any] | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    guided_whitespace_pattern: str | None = None


class ChatFields(Body):
    """Fields that choose how messages become a prompt."""

    messages: list[dict[str, Any]]
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: Annotated[dict[str, Any], BeforeValidator(_kwargs)] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    reasoning_effort: str | None = None


class ChatBody(ChatFields, GenerationBody):
    """POST /v1/chat/completions."""

    max_completion_tokens: int | None = None
    logprobs: bool = False
    top_logprobs: int = 0
    parallel_tool_calls: bool = True
    include_reasoning: bool = True
    thinking_token_budget: int | None = None


class CompletionBody(GenerationBody):
    """POST /v1/completions. `prompt`: text, ids, or a list of either; `prompts.py` takes it apart."""

    prompt: Any
    best_of: int | None = None
    echo: bool = False
    logprobs: int | None = None
    add_special_tokens: bool = True


class TokenizeBody(Body):
    """POST /tokenize with a prompt."""

    prompt: str
    model: str | None = None
    add_special_tokens: bool = True
    return_token_strs: bool = False


class TokenizeChatBody(ChatFields):
    """POST /tokenize with messages."""

    model: str | None = None
    add_special_tokens: bool = False
    return_token_strs: bool = False


class DetokenizeBody(Body):
    """POST /detokenize."""

    tokens: list[int]
    model: str | None = None


AnyBody = TypeVar("AnyBody", bound=Body)
GUARDS: Mapping[type[Body], Mapping[str, fields.Guard]] = {
    ChatBody: fields.CHAT,
    CompletionBody: fields.COMPLETIONS,
    TokenizeBody: fields.TOKENIZE,
    TokenizeChatBody: fields.TOKENIZE,
}


def read(kind: type[AnyBody], values: Mapping[str, object], warn: bool = False) -> AnyBody:
    """`values` as a typed body. Raises `RequestError` naming the first field that is wrong."""
    kept = fields.implemented(values, kind.model_fields, GUARDS.get(kind, {}), warn=warn)
    for name, inner in (("stream_options", StreamOptions), ("repetition_detection", RepetitionDetection)):
        if isinstance(options := kept.get(name), dict):
            kept[name] = fields.implemented(options, inner.model_fields, {}, where=f"{name}.", warn=warn)
    try:
        return kind.model_validate(kept)
    except ValidationError as error:
        raise _refusal(error.errors(include_url=False, include_context=False)[0]) from None


def read_tokenize(values: Mapping[str, object], warn: bool = False) -> TokenizeBody | TokenizeChatBody:
    """/tokenize's two forms are told apart by their fields."""
    return read(cast("type[TokenizeBody]", TokenizeChatBody if "messages" in values else TokenizeBody), values, warn)


def _refusal(first: ErrorDetails) -> RequestError:
    name = path([part for part in first["loc"] if part != "[key]"])
    if first["type"] == "missing":
        return RequestError(f"{name} is missing", param=name, code="missing_required_parameter")
    message = first["msg"][:1].lower() + first["msg"][1:]
    return RequestError(f"{name} is not usable: {message}", got=first["input"], param=name)


def path(parts: list[int | str]) -> str:
    """`messages[3].content` from its parts."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return text.lstrip(".")


StreamUsage = Literal["none", "last", "every"]


def stream_usage(body: GenerationBody) -> StreamUsage:
    """In which chunks usage stands. Raises `RequestError` for stream_options without stream."""
    if body.stream_options is None:
        return "none"
    fields.check_depends(body.stream, "stream_options", "stream=true")
    if not body.stream_options.include_usage:
        return "none"
    return "every" if body.stream_options.continuous_usage_stats else "last"
