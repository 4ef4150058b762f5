"""Connections passed between two servers in one process, and what cannot be passed."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from quire.cli.passing import PASSED, Taking, pass_on
from quire.errors import InvalidSetting
from quire.server.request_log import RequestLog


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data.upper())


class Kept:
    """What `pass_on` sees of a connection."""

    is_open = True

    def __init__(self, transport: Any) -> None:
        self.transport = transport


@contextmanager
def pairs() -> Iterator[tuple[socket.socket, socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener = socket.create_server(("127.0.0.1", 0))
    ours.setblocking(False)
    try:
        yield ours, theirs, listener
    finally:
        for each in (ours, theirs, listener):
            each.close()


async def until(is_so: Any) -> None:
    async with asyncio.timeout(10):
        while not is_so():
            await asyncio.sleep(0.001)


async def accepted(listener: socket.socket) -> tuple[socket.socket, Any]:
    """A client's end, and our transport of the connection."""
    here = asyncio.get_running_loop()
    client = socket.create_connection(listener.getsockname(), timeout=10)
    server, _ = listener.accept()
    server.setblocking(False)
    transport, _ = await here.connect_accepted_socket(asyncio.Protocol, server)
    client.setblocking(False)
    return client, transport


def test_what_was_sent_and_not_read_goes_along() -> None:
    async def play(ours: socket.socket, theirs: socket.socket, listener: socket.socket) -> None:
        taking = Taking(theirs, Echo)
        client, transport = await accepted(listener)
        transport.pause_reading()
        client.sendall(b"hello")
        assert pass_on(ours, Kept(transport))  # type: ignore[arg-type]
        assert transport.is_closing()
        assert await asyncio.get_running_loop().sock_recv(client, 100) == b"HELLO"
        client.sendall(b"again")
        assert await asyncio.get_running_loop().sock_recv(client, 100) == b"AGAIN"
        client.close()
        ours.close()
        await until(lambda: theirs.fileno() < 0)
        taking.close()
        await until(lambda: not taking._coming)

    with pairs() as three:
        asyncio.run(play(*three))


def test_what_cannot_be_passed_stays_as_it_is() -> None:
    async def play(ours: socket.socket, theirs: socket.socket, listener: socket.socket) -> None:
        client, transport = await accepted(listener)
        kept = Kept(transport)
        transport.write(b"x" * 10_000_000)
        assert transport.get_write_buffer_size()
        assert not pass_on(ours, kept)  # type: ignore[arg-type]
        while transport.get_write_buffer_size():
            await asyncio.get_running_loop().sock_recv(client, 1 << 20)
        kept.is_open = False
        assert not pass_on(ours, kept)  # type: ignore[arg-type]
        kept.is_open = True
        theirs.close()  # the successor has gone
        assert not pass_on(ours, kept)  # type: ignore[arg-type]
        assert not transport.is_closing()
        client.close()
        transport.abort()

    with pairs() as three:
        asyncio.run(play(*three))


def test_a_client_that_went_on_the_way_harms_nobody() -> None:
    async def play(ours: socket.socket, theirs: socket.socket, listener: socket.socket) -> None:
        taking = Taking(theirs, Echo)
        client, transport = await accepted(listener)
        client.close()
        assert pass_on(ours, Kept(transport))  # type: ignore[arg-type]
        ours.send(PASSED)  # and a message without a connection
        client, transport = await accepted(listener)
        assert pass_on(ours, Kept(transport))  # type: ignore[arg-type]
        client.sendall(b"here")
        assert await asyncio.get_running_loop().sock_recv(client, 100) == b"HERE"
        client.close()
        taking.close()
        await until(lambda: not taking._coming)

    with pairs() as three:
        asyncio.run(play(*three))


def test_a_request_log_is_shared_with_a_successor_and_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    first = RequestLog(path, 2**20)
    with pytest.raises(InvalidSetting):
        RequestLog(path, 2**20)
    first.share()
    second = RequestLog(path, 2**20)
    first._append(b'{"of": 1}\n')
    second._append(b'{"of": 2}\n')
    first.reclaim()  # in vain: the other one is there
    first._max_bytes = 1
    first._append(b'{"of": 3}\n')
    assert [json.loads(line)["of"] for line in path.read_text().splitlines()] == [1, 2, 3]
    second.close()
    first.reclaim()
    with suppress(InvalidSetting):
        RequestLog(path, 2**20)
        raise AssertionError("it is the first one's again")
    first._append(b'{"of": 4}\n')  # which begins it anew now
    assert path.read_text() == '{"of": 4}\n'
    first.close()
