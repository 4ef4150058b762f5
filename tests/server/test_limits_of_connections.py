"""Bounds of connections, heads, bodies in all, keys and labels: on a socket, or at the door.

Knows: rows of the limits. Does not know: JSON bodies (`test_limit_table.py`).
"""

from __future__ import annotations

import asyncio
import gc
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from served import EOS, Served, exchange, scope_of, served, wait_until

from quire import limits
from quire.limits import (
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    MAX_PIPELINED,
    MAX_PIPELINED_BYTES,
    MAX_REQUEST_ID_CHARACTERS,
    MAX_TARGET_BYTES,
)
from quire.server.access import BodyLimit
from quire.server.protocol import SPARE_CONNECTIONS, HttpProtocol
from quire.server.request_log import RequestLog
from quire.tenancy.keys import hash_of

PLAIN = b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n"
HEALTH = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
JSON = {"content-type": "application/json"}


@contextmanager
def bounded(**settings: int) -> Iterator[Served]:
    with served(lambda draw, index: EOS, **settings) as server:
        yield server


def connect(server: Served) -> socket.socket:
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port), timeout=10)


def ask(sock: socket.socket, data: bytes = PLAIN) -> bytes:
    """One answer; all of them end with a JSON object."""
    sock.sendall(data)
    answer = b""
    while not answer.endswith(b"}"):
        part = sock.recv(65536)
        if not part:
            break
        answer += part
    return answer


def is_closed(sock: socket.socket) -> bool:
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def error_of(answer: bytes) -> dict[str, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    return json.loads(body)["error"]


def test_past_the_bound_a_connection_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with bounded(max_connections=3) as server, ExitStack() as stack:
        held = [stack.enter_context(connect(server)) for _ in range(3)]
        assert all(ask(sock).startswith(b"HTTP/1.1 200") for sock in held)
        monkeypatch.setattr("quire.server.protocol.SETTLED_S", 3600.0)
        with connect(server) as one_more:
            answer = ask(one_more)
            assert answer.startswith(b"HTTP/1.1 503")
            assert b"\r\nretry-after: 1\r\n" in answer
            error = error_of(answer)
            assert error["code"] == "too_many_connections"
            assert "allowed: 3" in error["message"]
            assert is_closed(one_more)
        with connect(server) as health:
            assert ask(health, HEALTH).startswith(b"HTTP/1.1 200"), "who asks after the health is told it"
            assert is_closed(health)
        monkeypatch.setattr("quire.server.protocol.SETTLED_S", -1.0)
        with connect(server) as newer:
            assert ask(newer).startswith(b"HTTP/1.1 200"), "whoever has waited longest makes way"
        assert is_closed(held[0])
        assert ask(held[2]).startswith(b"HTTP/1.1 200")


def test_a_thousand_connections_too_many_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quire.server.protocol.SETTLED_S", 3600.0)
    with bounded(max_connections=2) as server, ExitStack() as stack:
        held = [stack.enter_context(connect(server)) for _ in range(2)]
        assert all(ask(sock).startswith(b"HTTP/1.1 200") for sock in held)
        for _ in range(4):
            for sock in [connect(server) for _ in range(200)]:
                sock.close()
            assert server._server is not None
            wait_until(lambda: len(server._server.server_state.connections) <= 2 + SPARE_CONNECTIONS)
        wait_until(lambda: len(server._server.server_state.connections) == 2)
        assert all(ask(sock).startswith(b"HTTP/1.1 200") for sock in held)


def test_an_address_has_its_own_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quire.server.protocol.SETTLED_S", -1.0)
    with bounded(max_connections_per_address=2) as server, ExitStack() as stack:
        held = [stack.enter_context(connect(server)) for _ in range(2)]
        assert all(ask(sock).startswith(b"HTTP/1.1 200") for sock in held)
        with connect(server) as third:
            answer = ask(third)
            assert answer.startswith(b"HTTP/1.1 503")
            assert "allowed: 2 of one address" in error_of(answer)["message"]


def head(line: bytes = b"GET /version HTTP/1.1", *headers: bytes) -> bytes:
    return b"\r\n".join([line, b"host: x", *headers, b"", b""])


def filled(num: int) -> bytes:
    """A head of `num` bytes."""
    empty = head(b"GET /version HTTP/1.1", b"a: ")
    return head(b"GET /version HTTP/1.1", b"a: " + b"y" * (num - len(empty)))


HEADS: dict[str, tuple[int, Callable[[int], bytes], int, str]] = {
    "bytes": (MAX_HEAD_BYTES, filled, 431, "head_too_large"),
    "target": (
        MAX_TARGET_BYTES,
        lambda num: head(b"GET /version?" + b"y" * (num - len("/version?")) + b" HTTP/1.1"),
        414,
        "target_too_long",
    ),
    "headers": (MAX_HEADERS, lambda num: head(b"GET /version HTTP/1.1", *[b"a: b"] * (num - 1)), 431, "head_too_large"),
}


@pytest.mark.parametrize("name", HEADS)
def test_heads_have_limits(talker: Served, name: str) -> None:
    most, made, status, code = HEADS[name]
    for num in (most, most + 1, 1000 * most):
        with connect(talker) as sock:
            data = made(num)
            try:
                answer = ask(sock, data)
            except (ConnectionResetError, BrokenPipeError, TimeoutError):
                assert num > most + 1
                continue
            if num <= most:
                assert answer.startswith(b"HTTP/1.1 200"), answer
                continue
            error = error_of(answer)
            if num == most + 1:  # far over it another limit may be met first
                assert answer.startswith(b"HTTP/1.1 %d" % status)
                assert error["code"] == code
                assert str(most) in error["message"]
            assert is_closed(sock)


def test_a_head_in_small_pieces_is_counted_too(talker: Served) -> None:
    with connect(talker) as sock:
        sock.sendall(b"GET /version HTTP/1.1\r\nhost: x\r\n")
        for _ in range(MAX_HEAD_BYTES // 1000):
            sock.sendall(b"a: " + b"y" * 995 + b"\r\n")
        sock.sendall(b"a: " + b"y" * 995 + b"\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 431")


def test_a_slow_head_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with bounded() as server:
        with connect(server) as sock:
            assert ask(sock).startswith(b"HTTP/1.1 200"), "in time"
        monkeypatch.setattr("quire.server.protocol.HEAD_TIMEOUT_S", 0.05)
        with connect(server) as sock:
            answer = ask(sock, b"GET /version HT")
            assert answer.startswith(b"HTTP/1.1 408")
            assert error_of(answer)["code"] == "too_slow"
            assert is_closed(sock)
        with connect(server) as sock:
            assert is_closed(sock), "nothing at all is told nothing"


def test_an_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quire.server.serve.KEEP_ALIVE_S", 0.0)
    with bounded() as server, connect(server) as sock:
        assert ask(sock).startswith(b"HTTP/1.1 200")
        assert is_closed(sock)


def test_who_does_not_wait_for_answers_is_closed(rambler: Served) -> None:
    """The first request is under way and holds the others back."""
    body = b'{"prompt": "x", "max_tokens": 5}'
    first = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    for num, is_served in ((MAX_PIPELINED, True), (MAX_PIPELINED + 1, False), (1000 * MAX_PIPELINED, False)):
        with connect(rambler) as sock:
            last = b"GET /version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
            sock.sendall(first % len(body) + body + PLAIN * (num - 1) + last)
            parts = []
            try:
                while part := sock.recv(65536):
                    parts.append(part)
            except ConnectionResetError:
                assert not is_served
            assert b"".join(parts).count(b"HTTP/1.1 200") == (num + 1 if is_served else 0)
        wait_until(rambler.is_idle)


@pytest.mark.parametrize("num_over", [0, 1])
def test_what_waits_behind_an_answer_is_bounded_in_bytes(num_over: int) -> None:
    with bounded() as server, connect(server) as sock:
        server.runner.gate.clear()
        body = b'{"prompt": "x", "max_tokens": 5}'
        kind, num_bytes = b"content-type: application/json", MAX_PIPELINED_BYTES + num_over
        sock.sendall(head(b"POST /v1/completions HTTP/1.1", kind, b"content-length: %d" % len(body)) + body)
        wait_until(lambda: server.client.num_open)
        second = head(b"POST /tokenize HTTP/1.1", kind, b"content-length: %d" % num_bytes) + b"x" * num_bytes
        if num_over:  # it is closed while the first still stands at the gate
            with suppress(ConnectionError):
                sock.sendall(second)
            assert is_closed(sock)
            server.runner.gate.set()
        else:
            sock.sendall(second)
            server.runner.gate.set()
            assert ask(sock, b"").startswith(b"HTTP/1.1 200")
        wait_until(server.is_idle)


def test_a_refused_body_can_still_be_read_about(talker: Served) -> None:
    """The answer to an upload that is too large is read by a client that writes first and reads then."""
    length = 16 * 2**20
    start = (
        b"POST /tokenize HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % length
    )
    with connect(talker) as sock:
        sock.sendall(start)
        for _ in range(16):
            sock.sendall(b"x" * 65536)
        assert sock.recv(65536).startswith(b"HTTP/1.1 413")
        assert is_closed(sock)


def test_nobody_waits_for_the_rest_of_a_body_after_the_answer() -> None:
    with served(lambda draw, index: EOS, api_key="k") as server, connect(server) as sock:
        answer = ask(sock, b"POST /tokenize HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n")
        assert answer.startswith(b"HTTP/1.1 401")
        assert is_closed(sock)


def test_a_connection_that_has_ended_is_no_garbage_to_be_searched_for(talker: Served) -> None:
    """The search is minutes away in a server that is never idle: 4 kB a connection were a megabyte a minute."""

    def num_here() -> int:
        return sum(type(each) is HttpProtocol for each in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = num_here()
        for data in (PLAIN, b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n"):
            sock = connect(talker)
            sock.sendall(data)
            sock.recv(1)
            sock.close()
        wait_until(lambda: num_here() <= before)
    finally:
        gc.enable()


def test_a_long_request_id_is_replaced(talker: Served) -> None:
    for num in (MAX_REQUEST_ID_CHARACTERS, MAX_REQUEST_ID_CHARACTERS + 1, 1000 * MAX_REQUEST_ID_CHARACTERS):
        asked = "a" * num
        given = talker.get("/version", x_request_id=asked).headers["x-request-id"]
        assert (given == asked) == (num <= MAX_REQUEST_ID_CHARACTERS)


def test_all_bodies_together_have_a_limit() -> None:
    held, done = asyncio.Event(), asyncio.Event()

    async def app(scope: object, receive: Callable[[], object], send: object) -> None:
        await receive()  # type: ignore[misc]
        held.set()
        await done.wait()

    async def run() -> None:
        layer = BodyLimit(app, max_bytes=1000, max_all_bytes=1500)
        scope = scope_of("POST", "/", {})

        def sender(num: int) -> Callable[[], object]:
            async def receive() -> dict[str, object]:
                return {"type": "http.request", "body": b"x" * num, "more_body": False}

            return receive

        first = asyncio.create_task(layer(scope, sender(1000), None))  # type: ignore[arg-type]
        await held.wait()
        second = asyncio.create_task(layer(scope, sender(500), None))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        assert not second.done()
        with pytest.raises(Exception, match="1501 bytes; allowed: 1500 bytes") as refused:
            await layer(scope, sender(1), None)  # type: ignore[arg-type]
        assert refused.value.status == 429  # type: ignore[attr-defined]
        done.set()
        await asyncio.gather(first, second)
        await layer(scope, sender(1000), None)  # type: ignore[arg-type]
        assert layer._num_all_bytes == 0

    asyncio.run(run())


KEYS = """
[keys.few]
sha256 = "{few}"
max_concurrent = 2
[keys.usual]
sha256 = "{usual}"
"""


def test_a_key_has_so_many_at_once(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(KEYS.format(few=hash_of("few"), usual=hash_of("usual")))
    with served(lambda draw, index: EOS, api_keys=str(path), max_concurrent_per_key=3) as server:
        server.runner.gate.clear()
        body = json.dumps({"prompt": "x", "max_tokens": 1}).encode()

        async def crowd(key: str, num: int) -> list[int]:
            async def one() -> int:
                headers = {**JSON, "x-api-key": key}
                answer = await exchange(server.app, "POST", "/v1/completions", [body], headers)
                if answer.status == 429:
                    assert answer.error["message"].endswith(" Wait for one of them to end.")
                    assert answer.headers["retry-after"] == "1"
                    server.runner.gate.set()
                return answer.status

            return list(await asyncio.gather(*(one() for _ in range(num))))

        for key, most in (("few", 2), ("usual", 3)):
            assert server.do(crowd(key, most + 4)).count(429) == 4
            server.runner.gate.clear()
            wait_until(server.is_idle)
        server.runner.gate.set()
        assert b'refused_total{cause="key"} 8.0' in server.get("/metrics", x_api_key="few").body


def test_labels_never_hold_what_a_request_says(rambler: Served) -> None:
    def num_series() -> int:
        return len([line for line in rambler.get("/metrics").body.splitlines() if not line.startswith(b"#")])

    def ask_all(number: int) -> None:
        rambler.get(f"/no/such/path/{number}")
        rambler.get(f"/v1/models/{number}")
        rambler.call(f"METHOD{number}", "/version", b"", {})
        rambler.get("/version", x_request_id=f"r{number}")
        rambler.complete(model=f"m{number}", max_tokens=1)
        rambler.complete(user=f"u{number}", cache_salt=f"s{number}", max_tokens=1)

    ask_all(0)
    num_series()  # asking for them is a request too
    before = num_series()
    for number in range(1, 40):
        ask_all(number)
    assert num_series() == before <= limits.MAX_METRIC_SERIES


def test_answers_that_wait_to_be_written_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quire.server.request_log.MAX_PENDING_ENTRIES", 2)
    log = RequestLog(tmp_path / "log", 2**20)
    monkeypatch.setattr(log._thread, "submit", lambda call, job: None)
    for _ in range(5):
        log.write(None)  # type: ignore[arg-type]
    assert (log._num_pending, log._num_lost) == (2, 3)
    log._num_pending = 0
    log.close()
