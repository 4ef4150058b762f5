"""Our error tree as HTTP: one table from error to status, headers and OpenAI's error body.

Knows: how an error is sent. Does not know: why it was raised. A client never reads the text of an exception that is
not ours: those are answered with one fixed sentence and logged.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quire.errors import (
    BodyTooLarge,
    InternalError,
    KilledEngine,
    MethodNotAllowed,
    Overloaded,
    QuireError,
    RequestError,
    RouteNotFound,
    ServiceError,
    ShuttingDown,
    TooManyConnections,
    Unauthorized,
)
from quire.observe import log
from quire.server.record import KEY as RECORD

PART = "server"
UNEXPECTED = "the server made a mistake while answering this request"
SENT_ERRORS = (RequestError, ServiceError, InternalError)  # worded for the one who asked; anything else is not


def body(error: QuireError) -> dict[str, object]:
    """`{"error": {message, type, param, code}}`, OpenAI's shape."""
    return {"error": {"message": error.message, "type": error.kind, "param": error.param, "code": error.code}}


def encode(error: QuireError) -> bytes:
    """The same as JSON; text that cannot be encoded is replaced."""
    parts = {key: _encodable(value) for key, value in body(error)["error"].items()}  # type: ignore[attr-defined]
    return msgspec.json.encode({"error": parts})


def headers(error: QuireError) -> dict[str, str]:
    """What a status asks for besides its body."""
    if isinstance(error, Overloaded):
        return _come_back(error)
    if isinstance(error, KilledEngine):
        return {"x-should-retry": "false"}  # OpenAI's clients would send it again, twice, for any 500
    if isinstance(error, Unauthorized):
        return {"www-authenticate": "Bearer"}
    if isinstance(error, (ShuttingDown, TooManyConnections)):
        return {"retry-after": str(math.ceil(error.retry_after_s)), "connection": "close"}
    if isinstance(error, BodyTooLarge):
        return {"connection": "close"}
    return {}


def _come_back(error: Overloaded) -> dict[str, str]:
    """Whole seconds for everyone, milliseconds for those who read them (OpenAI's clients do), and the estimate."""
    later_ms = max(1, math.ceil(1000 * error.retry_after_s))
    found = {"retry-after": str(max(1, math.ceil(error.retry_after_s))), "retry-after-ms": str(later_ms)}
    if error.estimate_s is not None:
        found["x-quire-estimate-ms"] = str(math.ceil(1000 * error.estimate_s))
    return found


def respond(error: QuireError, extra_headers: Mapping[str, str] | None = None) -> Response:
    """The whole HTTP answer for one of our errors."""
    return Response(
        encode(error), error.status, headers(error) | dict(extra_headers or {}), media_type="application/json"
    )


def as_ours(error: BaseException) -> QuireError:
    """`error` if it may be shown; the fixed sentence for everything else, which is logged here with its traceback."""
    if isinstance(error, SENT_ERRORS):
        return error
    log.get(PART).error("unexpected error", exc_info=error)
    return InternalError(UNEXPECTED, hint="The server's log says more, under this request's x-request-id.")


def from_router(error: HTTPException, method: str, path: str) -> QuireError:
    """What the router raises: no such path, or not with this method."""
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow") or (error.headers or {}).get("allow")
        return MethodNotAllowed(f"{path[:200]} does not take {method}", allowed=allowed)
    return RouteNotFound("there is no such route", got=f"{method} {path}", hint="The API begins at /v1.")


class Guard:
    """ASGI: every exception below becomes an answer in OpenAI's shape, unless an answer has begun."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, and mind how it ends."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:  # noqa: BLE001 - the last place where an exception can become an answer
            response = self._answer(error, scope)
            if not started:
                await response(scope, receive, send)

    def _answer(self, error: Exception, scope: Scope) -> Response:
        if isinstance(error, HTTPException):
            return respond(from_router(error, scope["method"], scope["path"]), error.headers)
        ours = as_ours(error)
        if isinstance(ours, Overloaded) and (record := scope.get(RECORD)) is not None:
            record.refused = ours.cause
        if ours.status >= 500 and not isinstance(ours, ShuttingDown):  # which is said once, by whoever ends them
            log.say(log.get(PART), logging.ERROR, "request failed", code=ours.code, message=ours.message)
        return respond(ours)


def _encodable(value: object) -> object:
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value
