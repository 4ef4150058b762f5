"""Who may come in, from where, and with how much: keys, browser origins, the size of a body, and of all together.

Knows: headers and bytes. Does not know: routes (but those of health, which are open), JSON, models. Never reads Host.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quire.errors import BodiesFull, BodyTooLarge, TooSlow, Unauthorized
from quire.limits import BODY_TIMEOUT_S
from quire.server.terms import SCOPE_KEY
from quire.tenancy.keys import Key, KeyRing

OPEN_PATHS = ("/health", "/livez", "/readyz", "/startupz")
OPEN_METHODS = ("GET", "HEAD")


class RequireKey:
    """ASGI: refuses every request without a key, before routing; whose it is goes on in the scope.

    `key` is the one of `--api-key`, which has no name. All are compared in constant time, as SHA-256. Open are the
    paths that say whether the server lives, spelt exactly so; what else decides is the key alone, never the Host, nor
    who connects. Two keys of different owners in one request are refused: it would be unclear whose it is.
    """

    def __init__(self, app: ASGIApp, key: str | None, ring: KeyRing | None = None) -> None:
        self._app, self._ring = app, ring
        self._digest = None if key is None else hashlib.sha256(key.encode("utf-8")).digest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, or raise `Unauthorized`."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] == "http" and not _is_open(scope) and not self._may_enter(scope):
            raise Unauthorized(
                "this server needs a key, and the one given is missing or wrong",
                hint="Send it as 'Authorization: Bearer <key>' or 'x-api-key: <key>'.",
            )
        await self._app(scope, receive, send)

    def _may_enter(self, scope: Scope) -> bool:
        digests = [hashlib.sha256(key).digest() for key in _keys(scope)]
        owners = {owner for digest in digests for owner in self._owners(digest)}
        if len(owners) != 1:
            return False
        scope[SCOPE_KEY] = owners.pop()
        return True

    def _owners(self, digest: bytes) -> list[Key | None]:
        """Whose key this is, None standing for the one without a name; as long as it takes, whichever it is."""
        named = None if self._ring is None else self._ring.find(digest)
        is_nameless = self._digest is not None and hmac.compare_digest(digest, self._digest)
        if named is not None:
            return [named]
        return [None] if is_nameless else []


def _is_open(scope: Scope) -> bool:
    return scope["path"] in OPEN_PATHS and scope["method"] in OPEN_METHODS


def _keys(scope: Scope) -> list[bytes]:
    """At most one key of each kind; a header that comes twice counts as none, since others may read the other one."""
    found: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            found.setdefault(name, []).append(value.strip())
        elif name == b"authorization":
            scheme, _, key = value.partition(b" ")
            found.setdefault(name, []).append(key.strip() if scheme.lower() == b"bearer" else b"")
    return [keys[0] for keys in found.values() if len(keys) == 1 and keys[0]]


class BodyLimit:
    """ASGI: refuses a body over `max_bytes`, by its declared length or while it is read, and with 429 one that would
    bring what all requests hold over `max_all_bytes`; a slow one times out."""

    def __init__(self, app: ASGIApp, max_bytes: int, max_all_bytes: int) -> None:
        self._app, self._max_bytes, self._max_all_bytes = app, max_bytes, max_all_bytes
        self._num_all_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on with a `receive` that counts."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._check(_declared_bytes(scope))
        num_bytes = 0

        async def counted() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_new = len(message.get("body", b""))
            num_bytes += num_new
            self._num_all_bytes += num_new
            self._check(num_bytes)
            self._check_all()
            return message

        try:
            await self._app(scope, counted, send)
        finally:
            self._num_all_bytes -= num_bytes

    def _check_all(self) -> None:
        if self._num_all_bytes > self._max_all_bytes:
            raise BodiesFull(
                "the bodies of all requests together are too large",
                got=f"{self._num_all_bytes} bytes",
                allowed=f"{self._max_all_bytes} bytes",
                hint="Try again later.",
            )

    def _check(self, num_bytes: int) -> None:
        if num_bytes > self._max_bytes:
            raise BodyTooLarge("the body is too large", got=f"{num_bytes} bytes", allowed=f"{self._max_bytes} bytes")


def _declared_bytes(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and len(value) < 20:
            return int(value)
    return 0


async def read_body(receive: Receive) -> bytes:
    """All bytes of the body. Raises `TooSlow` if they do not come in time, `ClientDisconnect` if it leaves."""
    parts: list[bytes] = []
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                parts.append(message.get("body", b""))
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise TooSlow("the body did not come in time", allowed=f"{BODY_TIMEOUT_S:g} s") from None


def allow_origins(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """ASGI: let browsers from these origins call the API. Preflights need no key; they say nothing but this list."""
    return CORSMiddleware(
        app,
        allow_origins=list(origins),
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=["x-request-id", "retry-after", "retry-after-ms", "x-quire-estimate-ms", "x-quire-seed"],
    )
