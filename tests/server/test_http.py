"""The server on a socket: heads that are too long or too slow, broken HTTP, bodies in chunks, keep-alive."""

from __future__ import annotations

import json
import socket
import time
from urllib.parse import urlsplit

import pytest
from served import TEXT, Served

from quire.limits import MAX_HEAD_BYTES


def connect(server: Served) -> socket.socket:
    address = urlsplit(server.url)
    sock = socket.create_connection((address.hostname, address.port), timeout=10)
    return sock


def talk(server: Served, data: bytes) -> bytes:
    """Send `data`, read until the server closes."""
    with connect(server) as sock:
        try:
            sock.sendall(data)
            return read_all(sock)
        except (ConnectionResetError, BrokenPipeError):
            return b""


def read_all(sock: socket.socket) -> bytes:
    parts = []
    while part := sock.recv(65536):
        parts.append(part)
    return b"".join(parts)


def test_an_endless_head_is_cut_off(talker: Served) -> None:
    head = b"GET /health HTTP/1.1\r\nhost: x\r\n" + b"x-filler: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 40_000
    assert len(head) > 10 * MAX_HEAD_BYTES
    assert b"HTTP/1.1 200" not in talk(talker, head)
    one_line = b"GET /health HTTP/1.1\r\nx-filler: " + b"y" * (4 * MAX_HEAD_BYTES)
    assert talk(talker, one_line).startswith(b"HTTP/1.1 431 ")


def test_a_head_that_does_not_come_is_given_up(talker: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quire.server.protocol.HEAD_TIMEOUT_S", 0.05)
    begin = time.monotonic()
    assert talk(talker, b"GET /health HT").startswith(b"HTTP/1.1 408 ")
    assert talk(talker, b"") == b""
    assert time.monotonic() - begin < 5


def test_a_large_body_in_the_packet_of_its_head_is_no_long_head(talker: Served) -> None:
    body = json.dumps({"prompt": "x", "metadata": "u" * (2 * MAX_HEAD_BYTES)}).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    answer = talk(talker, head.encode() + body)
    assert answer.startswith(b"HTTP/1.1 200")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["choices"][0]["text"]


def test_bodies_in_chunks_and_connections_that_stay(talker: Served) -> None:
    head = (
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json; charset=utf-8\r\n"
        b"transfer-encoding: chunked\r\n\r\n"
    )
    parts = (b'{"prompt": "', b'x"', b', "max_tokens": 100', b"}", b"")
    chunked = head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    last = b"GET /version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    answer = talk(talker, chunked + last)
    assert answer.count(b"HTTP/1.1 200") == 2
    assert TEXT.encode() in answer
    assert answer.endswith(b'{"version":"0.0.0"}')


@pytest.mark.parametrize("data", [b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"])
def test_what_is_no_http_gets_a_400(talker: Served, data: bytes) -> None:
    assert talk(talker, data).startswith(b"HTTP/1.1 400")


def test_smuggled_lengths_are_refused(talker: Served) -> None:
    both = b"POST /tokenize HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    twice = b"POST /tokenize HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef"
    for data in (both, twice):
        assert talk(talker, data).startswith(b"HTTP/1.1 400")


def test_an_upload_that_is_too_large_is_not_read_to_its_end(talker: Served) -> None:
    head = (
        b"POST /tokenize HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99999999999\r\n\r\n"
    )
    answer = talk(talker, head + b"x" * 1000)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"body_too_large" in answer
