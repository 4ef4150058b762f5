"""One HTTP request's record: its id in and out, its figures, one log line and one metrics event at its end.

Knows: what a request was, in numbers and names. Does not know: prompts, bodies, what an answer looks like.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quire.events import RequestStats
from quire.limits import MAX_REQUEST_ID_CHARACTERS
from quire.observe import log
from quire.observe.metrics import Metrics
from quire.server.lifecycle import Lifecycle

HEADER = "x-request-id"
KEY = "quire.record"
QUIET = ("/health", "/livez", "/readyz", "/startupz", "/metrics")  # what is asked for all the time
NO_ROUTE = "other"
CLIENT_GONE_STATUS = 499  # nobody reads it; the log's usual figure for a client that left before the answer began
_ID = re.compile(rf"[A-Za-z0-9._:\-]{{1,{MAX_REQUEST_ID_CHARACTERS}}}")


@dataclass(slots=True)
class Record:
    """What is learnt about one request while it is answered. Times in seconds on the server's steady clock."""

    request_id: str
    started_s: float
    route: str = NO_ROUTE
    status: int = 0
    model: str | None = None
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_output_tokens: int = 0
    first_token_s: float | None = None
    finish: str = ""
    refused: str = ""

    def stats(self, now_s: float) -> RequestStats:
        """The figures at the end."""
        first = None if self.first_token_s is None else self.first_token_s - self.started_s
        return RequestStats(
            request_id=self.request_id,
            route=self.route,
            status=self.status or CLIENT_GONE_STATUS,
            num_prompt_tokens=self.num_prompt_tokens,
            num_cached_tokens=self.num_cached_tokens,
            num_output_tokens=self.num_output_tokens,
            queue_to_first_token_s=first,
            total_s=now_s - self.started_s,
            finish=self.finish or "none",
            refused=self.refused,
        )


class Recorder:
    """ASGI: gives every request a record and an x-request-id, and says one line when it is over.

    Who leaves says so: an answer that begins then is its connection's last.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, now: Callable[[], float], lifecycle: Lifecycle | None = None
    ) -> None:
        """Without a lifecycle the server never leaves."""
        self._app, self._metrics, self._now = app, metrics, now
        self._lifecycle = Lifecycle() if lifecycle is None else lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on with its record under `scope[KEY]`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = Record(request_id_of(scope), self._now())
        scope[KEY] = record

        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[HEADER] = record.request_id
                if self._lifecycle.is_leaving:
                    headers["connection"] = "close"
            await send(message)

        try:
            await self._app(scope, receive, stamped)
        finally:
            self._finish(record, scope["method"])

    def _finish(self, record: Record, method: str) -> None:
        stats = record.stats(self._now())
        self._metrics.on_request(stats)
        quiet = stats.route in QUIET and stats.status == 200
        log.say(
            log.get("access"),
            logging.DEBUG if quiet else logging.INFO,
            "request",
            id=stats.request_id,
            method=method,
            route=stats.route,
            status=stats.status,
            model=record.model,
            prompt_tokens=stats.num_prompt_tokens or None,
            cached_tokens=stats.num_cached_tokens or None,
            output_tokens=stats.num_output_tokens or None,
            ttft_s=stats.queue_to_first_token_s,
            total_s=stats.total_s,
            finish=record.finish or None,
        )


def request_id_of(scope: Scope) -> str:
    """The caller's x-request-id if it is short and plain, a fresh one otherwise."""
    for name, value in scope["headers"]:
        if name == HEADER.encode() and _ID.fullmatch(given := value.decode("latin-1")):
            return str(given)
    return uuid.uuid4().hex


def record_of(scope: Scope) -> Record:
    """The record of the request that `scope` belongs to."""
    return cast("Record", scope[KEY])
