"""The request bodies as JSON schemas: what pydantic says of them, with the ranges and shapes that are checked later.

Knows: the bodies, limits of sampling, OpenAI's shapes. Does not know: routes, answers, how anything is checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quire.beams import MAX_LENGTH_PENALTY
from quire.limits import (
    MAX_ALLOWED_TOKEN_IDS,
    MAX_BAD_WORD_CHARACTERS,
    MAX_BAD_WORDS,
    MAX_DESCRIPTION_CHARACTERS,
    MAX_ID_CHARACTERS,
    MAX_LOGIT_BIAS,
    MAX_LOGPROBS,
    MAX_MESSAGES,
    MAX_N,
    MAX_PARTS,
    MAX_PATTERN_COUNT,
    MAX_PATTERN_SIZE,
    MAX_PROMPTS,
    MAX_SALT_CHARACTERS,
    MAX_STOP_CHARACTERS,
    MAX_STOP_TOKEN_IDS,
    MAX_STOPS,
    MAX_THINKING_TOKENS,
    MAX_TOOL_CALLS,
    MAX_TOOLS,
    MAX_USER_CHARACTERS,
)
from quire.request import MAX_PRIORITY
from quire.sampling_params import MAX_SEED
from quire.server import fields, schema
from quire.server.calling import NAME
from quire.server.forms import RESPONSE_FORMATS
from quire.server.messages import FIELDS

Schema = dict[str, Any]
MAX_INTEGER = 2**31 - 1
PREFIX = "#/components/schemas/"
BODIES = (
    schema.ChatBody,
    schema.CompletionBody,
    schema.TokenizeBody,
    schema.TokenizeChatBody,
    schema.DetokenizeBody,
)
RANGES: Mapping[str, Schema] = {
    "n": {"minimum": 1, "maximum": MAX_N},
    "best_of": {"minimum": 1, "maximum": MAX_N},
    "temperature": {"minimum": 0, "maximum": 2},
    "top_p": {"exclusiveMinimum": 0, "maximum": 1},
    "top_k": {"minimum": -1, "maximum": MAX_INTEGER},
    "min_p": {"minimum": 0, "maximum": 1},
    "presence_penalty": {"minimum": -2, "maximum": 2},
    "frequency_penalty": {"minimum": -2, "maximum": 2},
    "repetition_penalty": {"exclusiveMinimum": 0, "maximum": 10},
    "length_penalty": {"minimum": -MAX_LENGTH_PENALTY, "maximum": MAX_LENGTH_PENALTY},
    "seed": {"minimum": -MAX_SEED - 1, "maximum": MAX_SEED},
    "max_tokens": {"minimum": 1, "maximum": MAX_INTEGER},
    "max_completion_tokens": {"minimum": 1, "maximum": MAX_INTEGER},
    "min_tokens": {"minimum": 0, "maximum": MAX_INTEGER},
    "priority": {"minimum": -MAX_PRIORITY, "maximum": MAX_PRIORITY},
    "top_logprobs": {"minimum": 0, "maximum": MAX_LOGPROBS},
    "prompt_logprobs": {"minimum": 0, "maximum": MAX_LOGPROBS},
    "truncate_prompt_tokens": {"minimum": -1, "maximum": MAX_INTEGER, "not": {"const": 0}},
    "thinking_token_budget": {"minimum": 0, "maximum": MAX_THINKING_TOKENS},
    "max_pattern_size": {"minimum": 0, "maximum": MAX_PATTERN_SIZE},
    "min_pattern_size": {"minimum": 0, "maximum": MAX_PATTERN_SIZE},
    "min_count": {"minimum": 0, "maximum": MAX_PATTERN_COUNT},
    "cache_salt": {"minLength": 1, "maxLength": MAX_SALT_CHARACTERS},
    "user": {"maxLength": MAX_USER_CHARACTERS},
    "tools": {"maxItems": MAX_TOOLS},
    "messages": {"minItems": 1, "maxItems": MAX_MESSAGES},
}


def body_schemas(vocab_size: int | None = None) -> dict[str, Schema]:
    """Every request body by its name, with what they share. `vocab_size` bounds token ids; None leaves them open.

    null stands for an absent field wherever a field may be absent. What the schema cannot say is which fields go
    together (`fields.PAIRS`), whether a prompt fits the model's context, and whether a grammar can be compiled.
    """
    token = {"type": "integer", "minimum": 0, "maximum": MAX_INTEGER if vocab_size is None else vocab_size - 1}
    found: dict[str, Schema] = {**_messages(), **_calls(), **_forms(), "TokenId": token}
    for body in BODIES:
        made = body.model_json_schema(ref_template=PREFIX + "{model}")
        for name, inner in made.pop("$defs", {}).items():
            found[name] = _ranged(inner, {})
        found[body.__name__] = _ranged(made, _own(body))
        _add_others(found[body.__name__], schema.GUARDS.get(body, {}))
    return found


def ref(name: str) -> Schema:
    """A shared schema by its name."""
    return {"$ref": PREFIX + name}


def _ranged(body: Schema, own: Mapping[str, Schema]) -> Schema:
    """`body` with every field's range, or the schema that `own` gives it; what may be absent may be null."""
    needed = body.get("required", [])
    for name, found in body["properties"].items():
        found.pop("title", None)
        default = found.pop("default", None)
        inner = own.get(name) or _without_null(found)
        if name in RANGES:
            inner = {**RANGES[name], **inner}
        if name not in needed:
            inner = {"anyOf": [*inner["anyOf"], {"type": "null"}]} if set(inner) == {"anyOf"} else _or_null(inner)
            inner |= {"default": default} if default is not None else {}
        body["properties"][name] = inner
    return body


def _without_null(found: Schema) -> Schema:
    kinds = [kind for kind in found.get("anyOf", ()) if kind != {"type": "null"}]
    if not kinds:
        return found
    return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}


def _or_null(inner: Schema) -> Schema:
    return {"anyOf": [inner, {"type": "null"}]}


def _own(body: type[schema.Body]) -> dict[str, Schema]:
    """Fields that say more than their Python types do."""
    ids = {"type": "array", "items": ref("TokenId")}
    own: dict[str, Schema] = {
        "stop": {"anyOf": [_texts(1, MAX_STOP_CHARACTERS)["items"], _texts(MAX_STOPS, MAX_STOP_CHARACTERS)]},
        "bad_words": _texts(MAX_BAD_WORDS, MAX_BAD_WORD_CHARACTERS),
        "stop_token_ids": {**ids, "maxItems": MAX_STOP_TOKEN_IDS},
        "allowed_token_ids": {**ids, "minItems": 1, "maxItems": MAX_ALLOWED_TOKEN_IDS},
        "logit_bias": {
            "type": "object",
            "maxProperties": MAX_LOGIT_BIAS,
            "propertyNames": {"pattern": "^[0-9]{1,10}$"},
            "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
        },
        "messages": {"type": "array", "items": ref("Message")},
        "tools": {"type": "array", "items": ref("Tool")},
        "tool_choice": ref("ToolChoice"),
        "response_format": ref("ResponseFormat"),
        "structured_outputs": ref("StructuredOutputs"),
    }
    if body is schema.CompletionBody:
        own["prompt"] = _prompt(ids)
        own["logprobs"] = {"type": "integer", "minimum": 0, "maximum": MAX_LOGPROBS}
        own["max_tokens"] = {"type": "integer", "minimum": 0, "description": "0 with echo: the prompt alone."}
    if body is schema.DetokenizeBody:
        own["tokens"] = ids
    return own


def _texts(most: int, most_characters: int) -> Schema:
    return {
        "type": "array",
        "maxItems": most,
        "items": {"type": "string", "minLength": 1, "maxLength": most_characters},
    }


def _prompt(ids: Schema) -> Schema:
    some = {"minItems": 1, "maxItems": MAX_PROMPTS}
    one = {**ids, "minItems": 1}
    texts = {"type": "array", "items": {"type": "string"}, **some}
    return {"anyOf": [{"type": "string"}, texts, one, {"type": "array", "items": one, **some}]}


def _add_others(body: Schema, guards: Mapping[str, fields.Guard]) -> None:
    """Names that are known and not implemented: any value, or only those that ask for nothing."""
    properties = body["properties"]
    for name in sorted(fields.INERT):
        properties.setdefault(name, {"description": "Accepted, and changes nothing."})
    for name, guard in guards.items():
        if name not in properties:
            properties[name] = {"enum": [*guard.harmless, None], "description": guard.hint or "Not implemented."}


def _object(properties: Mapping[str, Schema], required: tuple[str, ...] = (), **more: Any) -> Schema:
    shown = {name: (inner if name in required else _or_null(inner)) for name, inner in properties.items()}
    made: Schema = {"type": "object", "properties": shown, "additionalProperties": False, **more}
    return {**made, "required": list(required)} if required else made


def _messages() -> dict[str, Schema]:
    """One schema a role: they take different fields."""
    text: Schema = {"type": "string"}
    part = _object({"type": {"const": "text"}, "text": text}, ("type", "text"))
    short: Schema = {"type": "string", "maxLength": MAX_ID_CHARACTERS}
    call = _object(
        {
            "id": short,
            "type": {"const": "function"},
            "function": _object({"name": text, "arguments": {**text, "description": "JSON text."}}, ("name",)),
        },
        ("function",),
    )
    kinds: dict[str, Schema] = {
        "content": {"anyOf": [text, {"type": "array", "minItems": 1, "maxItems": MAX_PARTS, "items": ref("TextPart")}]},
        "tool_calls": {"type": "array", "maxItems": MAX_TOOL_CALLS, "items": ref("MessageCall")},
        "name": short,
        "tool_call_id": short,
    }
    roles = []
    for role, names in FIELDS.items():
        properties = {name: kinds.get(name, text) for name in names} | {"role": {"const": role}}
        needed = ("role",) if role == "assistant" else ("role", "content")
        more = {"anyOf": [{"required": ["content"]}, {"required": ["tool_calls"]}]} if role == "assistant" else {}
        roles.append(_object(properties, needed, **more))
    return {"TextPart": part, "MessageCall": call, "Message": {"oneOf": roles}}


def _calls() -> dict[str, Schema]:
    name = {"type": "string", "pattern": f"^{NAME.pattern}$"}
    function = _object(
        {
            "name": name,
            "description": {"type": "string", "maxLength": MAX_DESCRIPTION_CHARACTERS},
            "parameters": {"type": "object", "description": "A JSON schema."},
            "strict": {"type": "boolean"},
        },
        ("name",),
    )
    kind = {"const": "function"}
    named = _object({"type": kind, "function": _object({"name": name}, ("name",))}, ("type", "function"))
    allowed = _object(
        {"mode": {"enum": ["auto", "required"]}, "tools": {"type": "array", "minItems": 1, "items": named}},
        ("mode", "tools"),
    )
    some = _object({"type": {"const": "allowed_tools"}, "allowed_tools": allowed}, ("type", "allowed_tools"))
    return {
        "Tool": _object({"type": kind, "function": function}, ("function",)),
        "ToolChoice": {"anyOf": [{"enum": ["none", "auto", "required"]}, named, some]},
    }


def _forms() -> dict[str, Schema]:
    text: Schema = {"type": "string"}
    json_schema: Schema = {"description": "A JSON schema.", "anyOf": [{"type": "object"}, {"type": "boolean"}]}
    wrapped = {"name": text, "schema": json_schema, "strict": {"type": "boolean"}, "description": text}
    plain = [_object({"type": {"const": kind}}, ("type",)) for kind in RESPONSE_FORMATS[:2]]
    kind, inner = RESPONSE_FORMATS[2], _object(wrapped, ("name",))
    tag = {"type": "object", "properties": {"type": {"const": RESPONSE_FORMATS[3]}}, "required": ["type"]}
    forms: dict[str, Schema] = {
        "json": {"anyOf": [*json_schema["anyOf"], text]},
        "json_object": {"const": True},
        "regex": text,
        "choice": {"type": "array", "minItems": 1, "items": text},
        "grammar": text,
        "structural_tag": {"anyOf": [text, {"type": "object"}]},
    }
    more = {"whitespace_pattern": text, "disable_any_whitespace": {"type": "boolean"}}
    return {
        "ResponseFormat": {
            "anyOf": [*plain, _object({"type": {"const": kind}, "json_schema": inner}, ("type", "json_schema")), tag]
        },
        "StructuredOutputs": {"oneOf": [_object({name: form, **more}, (name,)) for name, form in forms.items()]},
    }
