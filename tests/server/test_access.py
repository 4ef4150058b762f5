"""Who may come in: the key on every route but /health, browser origins, the size and the speed of a body."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from served import Served, exchange, scope_of, served

from quire.server.app import ROUTES

KEY = "sk-ünï-secret"


@pytest.fixture(scope="module")
def locked() -> Iterator[Served]:
    with served(api_key=KEY, cors_origins=("https://app.example",), max_body_bytes=2000) as server:
        yield server


@pytest.mark.parametrize(("path", "method"), [(path, method) for path, method, _ in ROUTES] + [("/none", "GET")])
@pytest.mark.parametrize("header", [{}, {"authorization": "Bearer nope"}, {"authorization": "Basic " + "sk-secret"}])
def test_every_route_but_health_needs_the_key(locked: Served, path: str, method: str, header: dict[str, str]) -> None:
    answer = locked.call(method, path.replace("{id:path}", "bundled"), b"{}", header)
    if path in ("/health", "/livez", "/readyz", "/startupz"):
        assert answer.status == 200
    else:
        assert answer.status == 401
        assert answer.error["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"] == "Bearer"
        assert KEY not in answer.body.decode()


@pytest.mark.parametrize("path", ["/health/", "/health/../v1/models", "//health", "/HEALTH", "/health%2f"])
def test_no_path_that_looks_like_health_is_open(locked: Served, path: str) -> None:
    assert locked.get(path).status == 401


@pytest.mark.parametrize("name", ["bearer", "Bearer"])
def test_the_key_opens(locked: Served, name: str) -> None:
    raw = KEY.encode().decode("latin-1")  # what a client that sends UTF-8 puts on the wire
    assert locked.get("/v1/models", authorization=f"{name} {raw}").status == 200
    assert locked.get("/v1/models", x_api_key=raw).status == 200
    assert locked.get("/v1/models", authorization="Bearer x", x_api_key=raw).status == 200


def test_websockets_are_turned_away(locked: Served) -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = scope_of("GET", "/v1/models", {}) | {"type": "websocket", "subprotocols": []}
    locked.do(locked.app(scope, receive, send))
    assert [message["type"] for message in sent] == ["websocket.close"]


def test_only_given_origins_are_allowed(locked: Served, rambler: Served) -> None:
    ask = {"origin": "https://app.example", "access-control-request-method": "POST"}
    asked = {**ask, "access-control-request-headers": "authorization,x-stainless-lang"}
    answer = locked.call("OPTIONS", "/v1/chat/completions", b"", asked)
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert "x-stainless-lang" in answer.headers["access-control-allow-headers"]
    foreign = locked.call("OPTIONS", "/v1/chat/completions", b"", {**ask, "origin": "https://evil.example"})
    assert "access-control-allow-origin" not in foreign.headers
    refused = locked.get("/v1/models", origin="https://app.example")
    assert refused.status == 401  # and readable for the page that asked
    assert refused.headers["access-control-allow-origin"] == "https://app.example"
    assert "access-control-allow-origin" not in rambler.get("/v1/models", origin="https://app.example").headers


@pytest.mark.parametrize("size", [1000, 1999, 2000, 2001, 2_000_000])
@pytest.mark.parametrize("declared", [True, False])
def test_bodies_have_a_limit(locked: Served, size: int, declared: bool) -> None:
    body = b'{"prompt": "x", "max_tokens": 1, "metadata": "' + b"u" * (size - 48) + b'"}'
    assert len(body) == size
    headers = {"content-type": "application/json", "x-api-key": KEY.encode().decode("latin-1")}
    if declared:
        headers["content-length"] = str(size)
    parts = [body[start : start + 700] for start in range(0, size, 700)]
    answer = locked.do(exchange(locked.app, "POST", "/v1/completions", parts, headers))
    assert answer.status == (200 if size <= 2000 else 413)
    if size > 2000:
        assert answer.error["code"] == "body_too_large"
        assert answer.headers["connection"] == "close"


def test_a_body_that_does_not_come_times_out(locked: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quire.server.access.BODY_TIMEOUT_S", 0.05)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(10)
        return {}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = {"content-type": "application/json", "x-api-key": KEY.encode().decode("latin-1")}
    locked.do(locked.app(scope_of("POST", "/v1/completions", headers), receive, send))
    assert sent[0]["status"] == 408
    assert b"did not come in time" in sent[1]["body"]
