"""What each route does, in a few lines: read, translate, answer.

Knows: the service and the rooms beside this file. Does not know: paths (`app.py`), how anything is computed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from quire.errors import RequestError
from quire.observe.metrics import CONTENT_TYPE
from quire.receipt import MEANINGS
from quire.server import schema
from quire.server.access import read_body
from quire.server.calling import read_calling
from quire.server.census import num_open
from quire.server.json_body import parse_object
from quire.server.presence import while_there
from quire.server.prompts import check_ids, encode_chat, encode_prompt, token_texts
from quire.server.record import record_of
from quire.server.rendering import rendered
from quire.server.reply import Reply
from quire.server.service import Service
from quire.server.terms import Terms, terms_of
from quire.server.translate import chat_job, completion_job

Handler = Callable[[Service, Request], Awaitable[Response]]
OWNER = "quire"


def bind(service: Service, path: str, handle: Handler) -> Callable[[Request], Awaitable[Response]]:
    """`handle` as an endpoint that notes its route; a client that leaves while it is read gets no answer."""

    async def endpoint(request: Request) -> Response:
        record = record_of(request.scope)
        record.route = path
        try:
            with service.lifecycle.mortal():
                return await handle(service, request)
        except ClientDisconnect:
            record.finish = "disconnect"
            return _Silence()

    return endpoint


async def chat(service: Service, request: Request) -> Response:
    """POST /v1/chat/completions."""
    body = schema.read(schema.ChatBody, await _values(request), _warns(service))
    terms = _terms(service, request)
    return Reply(service, lambda visit: chat_job(service, body, visit, terms))


async def render_chat(service: Service, request: Request) -> Response:
    """POST /v1/chat/completions/render: what the same body sent to /v1/chat/completions would compute, computed not."""
    body = schema.read(schema.ChatBody, await _values(request), _warns(service))
    terms = _terms(service, request)
    with service.door.visit() as visit:
        job = await while_there(request.receive, chat_job(service, body, visit, terms))
        return _json(rendered(service, job))


async def render_completion(service: Service, request: Request) -> Response:
    """POST /v1/completions/render: the same for /v1/completions."""
    body = schema.read(schema.CompletionBody, await _values(request), _warns(service))
    terms = _terms(service, request)
    with service.door.visit() as visit:
        job = await while_there(request.receive, completion_job(service, body, visit, terms))
        return _json(rendered(service, job))


async def complete(service: Service, request: Request) -> Response:
    """POST /v1/completions."""
    body = schema.read(schema.CompletionBody, await _values(request), _warns(service))
    terms = _terms(service, request)
    return Reply(service, lambda visit: completion_job(service, body, visit, terms))


async def tokenize(service: Service, request: Request) -> Response:
    """POST /tokenize: ids of a prompt, or of messages through the chat template."""
    body = schema.read_tokenize(await _values(request), _warns(service))
    service.name_of(body.model)
    if isinstance(body, schema.TokenizeBody):
        prompt = await encode_prompt(service, body.prompt, body.add_special_tokens)
    else:
        calling = read_calling(body.tools, body.tool_choice, True, _warns(service))
        prompt = await encode_chat(service, body, calling, body.add_special_tokens)
    texts = await token_texts(service, prompt.ids) if body.return_token_strs else None
    return _json(
        {
            "count": len(prompt.ids),
            "max_model_len": service.plan.max_model_len,
            "tokens": prompt.ids,
            "token_strs": texts,
        }
    )


async def detokenize(service: Service, request: Request) -> Response:
    """POST /detokenize: the text of ids, special tokens included."""
    body = schema.read(schema.DetokenizeBody, await _values(request), _warns(service))
    service.name_of(body.model)
    check_ids(body.tokens, service.vocab_size, "tokens")
    return _json({"prompt": await service.aside(len(body.tokens), service.tokenizer.decode, body.tokens, False)})


async def list_models(service: Service, request: Request) -> Response:
    """GET /v1/models."""
    return _json({"object": "list", "data": [_model(service, name) for name in service.names]})


async def show_model(service: Service, request: Request) -> Response:
    """GET /v1/models/{id}; ids may hold slashes."""
    return _json(_model(service, service.name_of(request.path_params["id"])))


async def metrics(service: Service, request: Request) -> Response:
    """GET /metrics, for Prometheus."""
    service.metrics.on_open(num_open(service))
    return Response(service.metrics.render(), headers={"content-type": CONTENT_TYPE})


async def receipt(service: Service, request: Request) -> Response:
    """GET /receipt: what the bits of an answer depend on, part by part; `system_fingerprint` is a digest of them."""
    parts = [{"name": name, "value": value, "meaning": MEANINGS.get(name)} for name, value in service.receipt.parts]
    return _json({"object": "receipt", "system_fingerprint": service.fingerprint, "parts": parts})


async def version(service: Service, request: Request) -> Response:
    """GET /version."""
    return _json({"version": service.version})


async def _values(request: Request) -> Mapping[str, object]:
    """The body's JSON object. A body that does not say it is JSON is refused: browsers may send such a one anywhere."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    data = await read_body(request.receive)
    if kind != "application/json":
        raise RequestError(
            "the body does not say that it is JSON",
            got=kind or "no content-type",
            allowed="content-type: application/json",
            param="content-type",
        )
    return parse_object(data)


def _terms(service: Service, request: Request) -> Terms:
    return terms_of(request.scope, record_of(request.scope).started_s, service.keys is not None)


def _warns(service: Service) -> bool:
    return service.settings.unknown_fields == "warn"


def _model(service: Service, name: str) -> dict[str, object]:
    return {
        "id": name,
        "object": "model",
        "created": service.created,
        "owned_by": OWNER,
        "root": service.names[0],
        "parent": None,
        "max_model_len": service.plan.max_model_len,
    }


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


class _Silence(Response):
    """Nothing at all, for a reader who has gone."""

    async def __call__(self, scope: object, receive: object, send: object) -> None:
        """Send nothing."""
