"""The table of routes, and the layers around it. No logic.

    Recorder > CORS > Guard > RequireKey > BodyLimit > router

Knows: what is reachable, and in which order a call passes. Does not know: how anything is done.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from quire.limits import max_bodies_bytes
from quire.server import health, openapi, routes
from quire.server.access import BodyLimit, RequireKey, allow_origins
from quire.server.failures import Guard
from quire.server.integrity import telling_of_looks
from quire.server.record import Recorder
from quire.server.recovery import tell_of_recall, telling
from quire.server.service import Service

ROUTES = (
    ("/v1/models", "GET", routes.list_models),
    ("/v1/models/{id:path}", "GET", routes.show_model),
    ("/v1/chat/completions", "POST", routes.chat),
    ("/v1/chat/completions/render", "POST", routes.render_chat),
    ("/v1/completions", "POST", routes.complete),
    ("/v1/completions/render", "POST", routes.render_completion),
    ("/tokenize", "POST", routes.tokenize),
    ("/detokenize", "POST", routes.detokenize),
    ("/health", "GET", health.health),
    ("/livez", "GET", health.livez),
    ("/readyz", "GET", health.readyz),
    ("/startupz", "GET", health.startupz),
    ("/metrics", "GET", routes.metrics),
    ("/version", "GET", routes.version),
    ("/receipt", "GET", routes.receipt),
)

DOCUMENT = "/openapi.json"


def create_app(service: Service) -> Starlette:
    """The ASGI application for one served model. `service.client` must have been started, in the loop that serves."""
    service.client.on_stats = service.metrics.on_step
    service.client.on_loss = telling(service.metrics)
    service.client.on_recall = tell_of_recall
    service.client.on_examined = tell = telling_of_looks(service.metrics)
    for examined in service.client.examined.values():
        tell(examined)
    table = ROUTES if not service.settings.api_docs else (*ROUTES, _document(service))
    app = Starlette(
        routes=[Route(path, routes.bind(service, path, handle), methods=[method]) for path, method, handle in table],
        middleware=_layers(service),
        exception_handlers={HTTPException: _pass_on},
    )
    app.router.redirect_slashes = False
    return app


def _document(service: Service) -> tuple[str, str, routes.Handler]:
    told = openapi.document(service.version, ROUTES, service.vocab_size)
    return DOCUMENT, "GET", openapi.answering(told)


def _layers(service: Service) -> list[Middleware]:
    settings = service.settings
    layers = [Middleware(Recorder, metrics=service.metrics, now=service.now, lifecycle=service.lifecycle)]
    if settings.cors_origins:
        layers.append(Middleware(allow_origins, origins=settings.cors_origins))
    layers.append(Middleware(Guard))
    if settings.api_key is not None or service.keys is not None:
        layers.append(Middleware(RequireKey, key=settings.api_key, ring=service.keys))
    layers.append(Middleware(BodyLimit, max_bytes=settings.max_body_bytes, max_all_bytes=max_bodies_bytes(settings)))
    return layers


async def _pass_on(request: Request, error: Exception) -> Response:
    """The router's own errors go to the Guard, like all others."""
    raise error
