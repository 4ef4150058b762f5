"""How uvicorn serves the application: protocol, limits and silence. Who starts and stops it is the caller's affair.

Knows: uvicorn's settings. Does not know: routes, engines, signals.
"""

from __future__ import annotations

from ssl import SSLContext

import uvicorn
from starlette.types import ASGIApp

from quire.limits import KEEP_ALIVE_S
from quire.server.protocol import Bounds, HttpConfig, HttpProtocol

BACKLOG = 2048
DRAIN_S = 10  # how long open answers may go on after the order to stop


def uvicorn_config(
    app: ASGIApp, drain_s: int = DRAIN_S, tls: SSLContext | None = None, bounds: Bounds | None = None
) -> uvicorn.Config:
    """HTTP by httptools with bounded heads and connections, no websockets, no proxy headers, log lines only through
    `observe/log`."""
    config = HttpConfig(
        app,
        bounds or Bounds(),
        http=HttpProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=round(KEEP_ALIVE_S),
        timeout_graceful_shutdown=drain_s,
    )
    config.load()
    config.ssl = tls  # ours: uvicorn's own would ask at a terminal for a key's password
    return config
