"""Whether this server lives, has started, and would answer: four routes that ask nobody.

    /livez      this process answers                                    else: start it anew
    /startupz   an engine has served once                               else: wait
    /readyz     a request would be computed now                         else: send requests elsewhere
    /health     the same under its older name

What they say of the engine stands on a page of memory that it writes (`engine/pulse.py`) and that is looked at all the
time, so they answer at once, whatever it is doing. None of them wants a key.

Knows: the service's client and lifecycle. Does not know: how the engine is judged (`engine/vitals.py`).
"""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from quire.errors import EngineDead, QuireError, ShuttingDown
from quire.server.failures import respond
from quire.server.service import Service

GOOD = msgspec.json.encode({"status": "ok"})


async def livez(service: Service, request: Request) -> Response:
    """GET /livez: 200 while this process answers, whatever its engine does."""
    return _told(None)


async def startupz(service: Service, request: Request) -> Response:
    """GET /startupz: 200 once an engine has served."""
    return _told(EngineDead("the server is starting") if service.client.ready is None else None)


async def readyz(service: Service, request: Request) -> Response:
    """GET /readyz: 200 only while a request would be computed now: the engine gets on, and nobody leaves."""
    return _told(_why_not(service))


async def health(service: Service, request: Request) -> Response:
    """GET /health: the same as /readyz."""
    return _told(_why_not(service))


def _why_not(service: Service) -> QuireError | None:
    if (why := service.client.why_not_ready) is not None:
        return EngineDead(f"not ready: {why}")
    if not service.lifecycle.is_ready:
        return ShuttingDown("the server is shutting down", hint="Requests that come now are still answered.")
    return None


def _told(error: QuireError | None) -> Response:
    # Answered here and not raised: whoever asks every second need not fill the log.
    return Response(GOOD, media_type="application/json") if error is None else respond(error)
