"""Nobody comes in without a key: every route by every method, and whatever hosts, paths and headers can be made up.

Knows: the app, on ASGI and on a socket, and who passes the door. Does not know: how the door decides.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import Answer, Served, scope_of, served
from starlette.routing import Route

from quire.server.access import OPEN_METHODS, OPEN_PATHS, BodyLimit
from quire.server.app import ROUTES
from quire.tenancy.keys import Key, hash_of

KEY = "the-right-key"
LIVENESS = {"/health", "/livez", "/readyz", "/startupz"}
METHODS = (
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get", "Post", "G",
)  # fmt: skip
WRONG: tuple[dict[str, str], ...] = (
    {},
    {"authorization": "Bearer"},
    {"authorization": "Bearer "},
    {"authorization": "bearer wrong"},
    {"authorization": KEY},
    {"authorization": f"Basic {KEY}"},
    {"authorization": f"Bearer {KEY}x"},
    {"authorization": f"Bearer {KEY[:-1]}"},
    {"authorization": f"Bearer {KEY.upper()}"},
    {"authorization": f"Bearer {hash_of(KEY)}"},
    {"x-api-key": ""},
    {"x-api-key": f"Bearer {KEY}"},
    {"api-key": KEY},
    {"cookie": f"authorization=Bearer {KEY}; x-api-key={KEY}"},
    {"proxy-authorization": f"Bearer {KEY}"},
    {"x-forwarded-for": "127.0.0.1", "x-real-ip": "127.0.0.1", "forwarded": "for=127.0.0.1"},
    {"x-http-method-override": "GET", "x-original-url": "/health", "x-rewrite-url": "/health"},
)


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    ring = tmp_path_factory.mktemp("keys") / "keys.toml"
    ring.write_text(Key("alice", hash_of("a-key")).as_toml() + Key("bob", hash_of("b-key")).as_toml())
    with served(api_key=KEY, api_keys=str(ring), api_docs=True) as server:
        yield server


class Passed:
    """Who came past the door."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []

    def strangers(self) -> list[tuple[str, str]]:
        """Method and path of those who showed no right key, and do not only ask whether the server lives."""
        return [
            (scope["method"], scope["path"])
            for scope in self.scopes
            if not (scope["path"] in LIVENESS and scope["method"] in ("GET", "HEAD")) and not _shows_key(scope)
        ]


def _shows_key(scope: dict[str, Any]) -> bool:
    right = {KEY.encode(), b"a-key", b"b-key"}
    shown = [value.split(b" ", 1)[-1].strip() for name, value in scope["headers"] if name in SHOWN]
    return any(value in right for value in shown)


SHOWN = (b"authorization", b"x-api-key")


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> Passed:
    seen, inner = Passed(), BodyLimit.__call__

    async def spying(self: BodyLimit, scope: Any, receive: Any, send: Any) -> None:
        seen.scopes.append(scope)
        await inner(self, scope, receive, send)

    monkeypatch.setattr(BodyLimit, "__call__", spying)
    return seen


def concrete(path: str) -> str:
    return path.replace("{id:path}", "bundled")


def test_only_what_says_that_the_server_lives_is_open() -> None:
    assert set(OPEN_PATHS) <= LIVENESS
    assert set(OPEN_METHODS) == {"GET", "HEAD"}
    methods = {path: method for path, method, _ in ROUTES}
    assert all(methods[path] == "GET" for path in OPEN_PATHS)


def test_the_app_has_no_route_but_those_of_the_table(locked: Served) -> None:
    found = locked.app.router.routes
    assert all(type(route) is Route for route in found), "a mount or a websocket has doors of its own"
    paths = {route.path for route in found if isinstance(route, Route)}
    assert paths == {path for path, _, _ in ROUTES} | {"/openapi.json"}
    assert not locked.app.router.redirect_slashes


@pytest.mark.parametrize("path", [concrete(path) for path, _, _ in ROUTES] + ["/openapi.json", "/", "/none", "*", ""])
def test_every_route_by_every_method_asks_for_the_key(locked: Served, passed: Passed, path: str) -> None:
    for method in METHODS:
        for headers in WRONG:
            answer = locked.call(method, path, b"{}", {"content-type": "application/json", **headers})
            if path in OPEN_PATHS and method in OPEN_METHODS:
                assert answer.status == 200
                continue
            assert answer.status == 401, (method, path, headers)
            assert answer.error["code"] == "invalid_api_key"
            assert KEY.encode() not in answer.body
    assert passed.strangers() == []


def test_with_the_key_what_is_not_there_is_not_there(locked: Served) -> None:
    assert locked.get("/none", x_api_key=KEY).status == 404
    assert locked.call("DELETE", "/v1/models", b"", {"x-api-key": KEY}).status == 405
    for path in ("/v1/models/", "//v1/models", "/v1//models", "/V1/models", "/v1/./models", "/v1/models;a"):
        assert locked.get(path, x_api_key=KEY).status == 404


def test_a_request_has_one_owner(locked: Served) -> None:
    def ask(*headers: tuple[str, str]) -> int:
        scope = scope_of("GET", "/v1/models", {})
        scope["headers"] = [(name.encode(), value.encode()) for name, value in headers]
        return _call(locked, scope).status

    assert ask(("authorization", "Bearer a-key"), ("x-api-key", "a-key")) == 200
    assert ask(("authorization", "Bearer a-key"), ("x-api-key", "none")) == 200
    assert ask(("authorization", "Bearer a-key"), ("x-api-key", "b-key")) == 401
    assert ask(("authorization", "Bearer a-key"), ("x-api-key", KEY)) == 401
    assert ask(("authorization", "Bearer none"), ("authorization", "Bearer a-key")) == 401
    assert ask(("authorization", "Bearer a-key"), ("authorization", "Bearer none")) == 401
    assert ask(("x-api-key", "a-key"), ("x-api-key", "a-key")) == 401


def _call(server: Served, scope: dict[str, Any]) -> Answer:
    """One request whose scope is given as it is."""
    answer = Answer()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
        else:
            answer.body += message.get("body", b"")

    server.do(server.app(scope, receive, send))
    return answer


FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PIECES = st.sampled_from(
    ["/", "//", "health", "livez", "readyz", "startupz", "v1", "models", "metrics", "..", ".", "%2e", "%2f", "%00",
     "\x00", ";", "?", "#", " ", "\\", "HEALTH", "Health", "%68ealth", "health%20", "@", ":80", "http:", "*"]
)  # fmt: skip
PATHS = st.lists(PIECES, max_size=7).map(lambda parts: "/" + "".join(parts)) | st.text(max_size=12)
HEADER_NAMES = st.sampled_from(
    [b"host", b"x-forwarded-host", b"x-forwarded-prefix", b"x-original-url", b"x-http-method-override", b"forwarded",
     b"authorization", b"x-api-key", b"x_api_key", b"x-api-key ", b"Authorization", b"cookie", b"upgrade", b"origin",
     b"access-control-request-method", b"content-length", b"transfer-encoding", b"connection"]
)  # fmt: skip
HEADER_VALUES = st.sampled_from(
    [b"", b"/health", b"localhost", b"127.0.0.1", b"GET", b"Bearer", b"Bearer ", b"Bearer x", b"Bearer\x00a-key",
     b"Basic YS1rZXk6", b"chunked", b"0", b"http://localhost", b"close, x-api-key", b"Bearer the-right-ke"]
) | st.binary(max_size=20)  # fmt: skip


@FUZZ
@given(
    method=st.sampled_from(METHODS) | st.text(max_size=6),
    path=PATHS,
    headers=st.lists(st.tuples(HEADER_NAMES, HEADER_VALUES), max_size=5),
    root_path=st.just("") | PATHS,
    query=st.binary(max_size=8),
)
def test_no_host_path_or_header_opens_the_door(
    locked: Served, passed: Passed, method: str, path: str, headers: list[Any], root_path: str, query: bytes
) -> None:
    scope = scope_of(method, path, {}) if path.isascii() else scope_of(method, "/", {}) | {"path": path}
    answer = _call(locked, scope | {"headers": headers, "root_path": root_path, "query_string": query})
    is_open = path in OPEN_PATHS and method in OPEN_METHODS
    assert answer.status == 401 or is_open
    assert passed.strangers() == []
    passed.scopes.clear()


@FUZZ
@given(headers=st.lists(st.tuples(st.just(b"host") | st.just(b"x-forwarded-host"), HEADER_VALUES), max_size=3))
def test_no_host_closes_it_either(locked: Served, headers: list[Any]) -> None:
    scope = scope_of("GET", "/version", {})
    assert _call(locked, scope | {"headers": [*headers, (b"x-api-key", b"a-key")]}).status == 200


def talk(server: Served, data: bytes, and_no_more: bool = True) -> bytes:
    """Send `data` on a connection of its own, which says that it is all, or that more may come; read to its end."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as sock:
        parts = []
        try:
            sock.sendall(data)
            if and_no_more:
                sock.shutdown(socket.SHUT_WR)
            while part := sock.recv(65536):
                parts.append(part)
        except ConnectionError:
            pass
        return b"".join(parts)


END = b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
OPEN_TARGETS = (b"GET /health" + END, b"GET http://evil.example/health" + END, b"GET /%68ealth" + END)
RAW = (
    b"GET /v1/models" + END,
    b"GET //health" + END,
    b"GET /health/" + END,
    b"GET /health/../v1/models" + END,
    b"GET /health/..%2fv1/models" + END,
    b"GET /health;/v1/models" + END,
    b"GET /v1/models;/health" + END,
    b"GET /v1/models?/health" + END,
    b"GET /v1/models#/health" + END,
    b"GET /health%00" + END,
    b"GET /health%20" + END,
    b"GET /HEALTH" + END,
    b"GET \\health" + END,
    b"GET http://x/v1/models" + END,
    b"GET http://127.0.0.1/health/../v1/models" + END,
    b"GET http:///health" + END,
    b"OPTIONS *" + END,
    b"CONNECT localhost:80" + END,
    b"POST /health" + END,
    b"GET /v1/models HTTP/1.0\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nhost: x\r\nhost: /health\r\nconnection: close\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx-api-key : a-key\r\nconnection: close\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nhost: x\r\na: b\r\n x-api-key: a-key\r\nconnection: close\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx-api-key\x00: a-key\r\nconnection: close\r\n\r\n",
    b"GET /v1/models HTTP/1.1\nhost: x\nx: y\rx-api-key: a-key\nconnection: close\n\n",
    b"GET /health HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    b"GET /v1/models" + END,
    b"GET /health HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\ncontent-length: 43\r\n\r\nGET /v1/models" + END,
    b"GET /health HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\nGET /v1/models" + END,
    b"GET /v1/models HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)


@pytest.mark.parametrize("data", RAW)
def test_nothing_that_can_be_put_on_the_wire_opens_it(locked: Served, passed: Passed, data: bytes) -> None:
    answer = talk(locked, data)
    assert passed.strangers() == []
    assert b'"id":"bundled"' not in answer
    assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 200 OK"))


@pytest.mark.parametrize("data", OPEN_TARGETS)
def test_the_door_and_the_router_read_the_same_path(locked: Served, passed: Passed, data: bytes) -> None:
    assert talk(locked, data).startswith(b"HTTP/1.1 200")
    assert [scope["path"] for scope in passed.scopes] == ["/health"]


def test_a_key_holds_for_one_request_only(locked: Served, passed: Passed) -> None:
    """A connection that a proxy shares between people: the key of one opens nothing to the next."""
    mine = b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx-api-key: a-key\r\n\r\n"
    answer = talk(locked, mine + b"GET /v1/models" + END, and_no_more=False)
    assert answer.count(b"HTTP/1.1 200") == 1
    assert answer.count(b"HTTP/1.1 401") == 1
    hidden = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nx-api-key: a-key\r\ncontent-length: %d\r\n\r\n"
    inner = b"GET /metrics" + END
    answer = talk(locked, hidden % len(inner) + inner + b"GET /v1/models" + END, and_no_more=False)
    assert answer.count(b"HTTP/1.1 ") == 2
    assert b"HTTP/1.1 401" in answer
    assert passed.strangers() == []


@settings(FUZZ, max_examples=100)
@given(
    line=st.lists(
        st.sampled_from(
            [
                b"GET",
                b"POST",
                b" ",
                b"  ",
                b"/health",
                b"/v1/models",
                b"http://x",
                b"//",
                b"\t",
                b"HTTP/1.1",
                b"%2e%2e",
                b"/..",
                b"?",
                b"#",
                b"\x00",
                b"\xff",
            ]
        ),
        max_size=6,
    ),
    headers=st.lists(st.tuples(HEADER_NAMES, HEADER_VALUES), max_size=4),
)
def test_no_bytes_open_it(locked: Served, passed: Passed, line: list[bytes], headers: list[Any]) -> None:
    head = b"".join([name + b": " + value + b"\r\n" for name, value in headers])
    talk(locked, b"".join(line) + b" HTTP/1.1\r\n" + head + b"connection: close\r\n\r\n")
    talk(locked, b"GET /v1/models HTTP/1.1\r\n" + head + b"connection: close\r\n\r\n")
    assert passed.strangers() == []
    passed.scopes.clear()


def test_names_of_keys_are_no_keys(locked: Served) -> None:
    for name in ("alice", "bob", "key:alice", hash_of("a-key"), "default", "none", "null", "undefined"):
        assert locked.get("/v1/models", x_api_key=name).status == 401


def test_the_server_keeps_no_key_only_hashes(locked: Served) -> None:
    ring = locked.service.keys
    assert ring is not None
    kept = {name: getattr(ring, name) for name in dir(ring) if not name.startswith("__")}
    assert "alice" in repr(kept)
    assert "a-key" not in repr(kept)
