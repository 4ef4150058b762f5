"""The form that a body asks its answer to have, under any of the names that clients use, as a compiled constraint.

    response_format       OpenAI: text, json_object, json_schema; vLLM: structural_tag
    structured_outputs    vLLM: {"json" | "regex" | "choice" | "grammar" | "json_object" | "structural_tag": ...}
    guided_json, ...      vLLM before 0.12

Knows: these names. Does not know: grammars' notation (`structured/source.py`), who compiles them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quire.errors import RequestError
from quire.form import StructuredOutputsParams
from quire.request import Constraint
from quire.server import fields
from quire.structured.schema import place_of
from quire.structured.source import grammar_of

if TYPE_CHECKING:
    from quire.server.schema import GenerationBody
    from quire.server.service import Service

RESPONSE_FORMATS = ("text", "json_object", "json_schema", "structural_tag")
GUIDED = ("json", "regex", "choice", "grammar")
STRUCTURED_FIELDS = frozenset(StructuredOutputsParams.__dataclass_fields__)
STRUCTURED_GUARDS = {
    "disable_fallback": fields.Guard((True, False)),
    "disable_additional_properties": fields.Guard((False,), "Write additionalProperties: false into the schema."),
}
JSON_SCHEMA_FIELDS = frozenset({"name", "schema", "strict", "description"})


@dataclass(frozen=True, slots=True)
class Content:
    """A form as a grammar that is not compiled yet, the schema that it was made of, and the field that asked for it."""

    grammar: str
    schema: object
    param: str


async def form_of_answer(service: Service, body: GenerationBody) -> Content | None:
    """The form of `body`, None where any text will do. Raises `RequestError` naming the field."""
    asked = form_of(body)
    if asked is None:
        return None
    form, param = asked
    size = sum([len(str(value)) for value in (form.json, form.structural_tag, form.grammar) if value is not None])
    return Content(
        await service.aside(size, grammar_of, form, service.tokenizer.special_texts, param), form.json, param
    )


async def prepared(service: Service, grammar: str, content: Content | None, owner: str) -> Constraint:
    """`grammar` compiled by the engine. Raises `RequestError` naming the field where it cannot be."""
    constraint = Constraint(grammar, owner)
    try:
        await service.client.prepare(constraint)
    except RequestError as error:
        if content is None:
            raise RequestError(error.message, param="tools", code="invalid_grammar") from None
        place = place_of(content.schema, error.message)
        hint = None if place is None else f"The first of them stands at {place} of the schema."
        raise RequestError(error.message, hint=hint, param=content.param, code="invalid_grammar") from None
    return constraint


def form_of(body: GenerationBody) -> tuple[StructuredOutputsParams, str] | None:
    """What is asked for and the field that asks; None where nothing is. Raises `RequestError` for two at once."""
    asked = [
        (name, value)
        for name, value in (
            ("response_format", body.response_format),
            ("structured_outputs", body.structured_outputs),
            *((f"guided_{kind}", getattr(body, f"guided_{kind}")) for kind in GUIDED),
        )
        if value is not None and not (name == "response_format" and value.get("type") == "text")
    ]
    fields.check_depends(
        body.guided_whitespace_pattern is None or bool(asked), "guided_whitespace_pattern", "guided_json"
    )
    if len(asked) > 1:
        raise RequestError(
            "two forms are asked for at once", got=" and ".join(name for name, _ in asked), param=asked[1][0]
        )
    if not asked:
        return None
    name, value = asked[0]
    if name == "response_format":
        return _response_format(value), name
    if name == "structured_outputs":
        kept = fields.implemented(value, STRUCTURED_FIELDS, STRUCTURED_GUARDS, where="structured_outputs.")
        return _form(kept, name), name
    pattern = {"whitespace_pattern": body.guided_whitespace_pattern} if name == "guided_json" else {}
    return _form({name.removeprefix("guided_"): value, **pattern}, name), name


def _form(values: Mapping[str, Any], param: str) -> StructuredOutputsParams:
    for name, kind in (("json_object", bool), ("disable_any_whitespace", bool)):
        if name in values and not isinstance(values[name], kind):
            raise RequestError(f"{name} is not true or false", got=values[name], param=f"{param}.{name}")
    return StructuredOutputsParams(**values)


def _response_format(value: Mapping[str, Any]) -> StructuredOutputsParams:
    kind = value.get("type")
    if kind == "json_object":
        _known(value, frozenset({"type"}), "")
        return StructuredOutputsParams(json_object=True)
    if kind == "json_schema":
        _known(value, frozenset({"type", "json_schema"}), "")
        return StructuredOutputsParams(json=_json_schema(value.get("json_schema")))
    if kind == "structural_tag":
        return StructuredOutputsParams(structural_tag={key: inner for key, inner in value.items() if key != "type"})
    raise RequestError(
        "there is no such response_format", got=kind, allowed=", ".join(RESPONSE_FORMATS), param="response_format.type"
    )


def _json_schema(value: object) -> Any:
    """OpenAI's wrapping: {"name": ..., "schema": {...}, "strict": true}. Strict or not, the schema is held."""
    where = "response_format.json_schema"
    if not isinstance(value, Mapping):
        raise RequestError(f"{where} is no object", got=value, allowed='{"name": ..., "schema": {...}}', param=where)
    kept = _known(value, JSON_SCHEMA_FIELDS, ".json_schema")
    if not isinstance(kept.get("name"), str):
        raise RequestError(f"{where}.name is missing or no text", param=f"{where}.name")
    if not isinstance(kept.get("strict", True), bool):
        raise RequestError(f"{where}.strict is not true or false", got=kept["strict"], param=f"{where}.strict")
    return kept.get("schema", {"type": "object"})


def _known(value: Mapping[str, Any], names: frozenset[str], where: str) -> dict[str, Any]:
    return fields.implemented(value, names, {}, inert=frozenset(), where=f"response_format{where}.")
