"""The API in OpenAPI's words, made of the routes and bodies as they are: `/openapi.json` with `--api-docs`.

Knows: which route takes and gives what. Does not know: how anything is done, or a page to look at it with.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from quire.server import schema, shapes
from quire.server.body_schemas import PREFIX, body_schemas, ref
from quire.server.service import Service
from quire.server.terms import DEADLINE_HEADER

Schema = dict[str, Any]
Route = tuple[str, str, Callable[..., Any]]
VERSION = "3.1.0"
TAKES: Mapping[str, tuple[type[schema.Body], ...]] = {
    "/v1/chat/completions": (schema.ChatBody,),
    "/v1/chat/completions/render": (schema.ChatBody,),
    "/v1/completions": (schema.CompletionBody,),
    "/v1/completions/render": (schema.CompletionBody,),
    "/tokenize": (schema.TokenizeBody, schema.TokenizeChatBody),
    "/detokenize": (schema.DetokenizeBody,),
}
GIVES: Mapping[str, type[msgspec.Struct]] = {
    "/v1/chat/completions": shapes.ChatCompletion,
    "/v1/completions": shapes.TextCompletion,
}
STREAMS = frozenset(GIVES)
ENGINE = frozenset({401, 503})  # any route may answer with these; those that read a body with the next ones too
BODY = frozenset({400, 404, 408, 413, 414, 429, 431, 500})
ERRORS: Mapping[int, str] = {
    400: "The request cannot be answered: `message` says what, what it got, what is allowed.",
    401: "No key, or a wrong one.",
    404: "No such route, or no such model.",
    408: "The head or the body did not come in time.",
    413: "The body is too large.",
    414: "The path and query are too long.",
    429: "Too much is waiting, or the deadline cannot be kept; retry-after says when to come again.",
    431: "The head is too large.",
    500: "A mistake of the server's, or a computation that went wrong: this request's alone.",
    503: "The engine is not serving, or too many connections are open.",
}


def document(release: str, routes: Sequence[Route], vocab_size: int | None = None) -> dict[str, Any]:
    """An OpenAPI 3.1 document of `routes` (path, method, handler). `vocab_size` bounds token ids where it is known."""
    paths: dict[str, dict[str, Schema]] = {}
    for path, method, handle in routes:
        paths.setdefault(path.replace(":path}", "}"), {})[method.lower()] = _operation(path, handle)
    return {
        "openapi": VERSION,
        "info": {
            "title": "quire",
            "version": release,
            "description": "OpenAI's API, with vLLM's additions. null stands for an absent field; unknown fields are "
            "refused by name.",
        },
        "paths": paths,
        "components": {
            "schemas": {**body_schemas(vocab_size), **_answers(), "Error": _error()},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
        "security": [{"bearer": []}, {"x-api-key": []}, {}],
    }


def answering(told: dict[str, Any]) -> Callable[[Service, Request], Awaitable[Response]]:
    """The handler of a route that tells the document `told`, which is made before the first request."""
    data = msgspec.json.encode(told)

    async def openapi(service: Service, request: Request) -> Response:
        """GET /openapi.json: this document; only with --api-docs."""
        return Response(data, media_type="application/json")

    return openapi


def _operation(path: str, handle: Callable[..., Any]) -> Schema:
    bodies = TAKES.get(path, ())
    operation: Schema = {
        "operationId": handle.__name__,
        "summary": (handle.__doc__ or "").strip().split("\n")[0],
        "parameters": _parameters(path),
        "responses": {"200": _answer(path), **_errors(path, bool(bodies))},
    }
    if bodies:
        kinds = [ref(body.__name__) for body in bodies]
        content = {"application/json": {"schema": kinds[0] if len(kinds) == 1 else {"anyOf": kinds}}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _parameters(path: str) -> list[Schema]:
    found: list[Schema] = []
    if "{id" in path:
        found.append({"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}})
    if path in TAKES and path.startswith("/v1"):
        limits = {"type": "number", "minimum": 1, "maximum": 3_600_000}
        what = "Milliseconds within which the first token is of use."
        found.append({"name": DEADLINE_HEADER, "in": "header", "schema": limits, "description": what})
    return found


def _answer(path: str) -> Schema:
    if path == "/metrics":
        return {"description": "Prometheus' text form.", "content": {"text/plain": {}}}
    shape = ref(GIVES[path].__name__) if path in GIVES else {"type": "object"}
    content: Schema = {"application/json": {"schema": shape}}
    if path in STREAMS:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    return {"description": "The answer.", "content": content}


def _errors(path: str, takes_body: bool) -> Schema:
    statuses = ENGINE | (BODY if takes_body else frozenset()) | ({404} if "{id" in path else frozenset())
    content = {"application/json": {"schema": ref("Error")}}
    return {str(status): {"description": ERRORS[status], "content": content} for status in sorted(statuses)}


def _answers() -> dict[str, Schema]:
    """What msgspec says of the structs that are sent."""
    return msgspec.json.schema_components(tuple(GIVES.values()), ref_template=PREFIX + "{name}")[1]


def _error() -> Schema:
    text: Schema = {"type": "string"}
    maybe: Schema = {"type": ["string", "null"]}
    inner = {"message": text, "type": text, "param": maybe, "code": maybe}
    error = {"type": "object", "properties": inner, "required": list(inner), "additionalProperties": False}
    return {"type": "object", "properties": {"error": error}, "required": ["error"], "additionalProperties": False}
