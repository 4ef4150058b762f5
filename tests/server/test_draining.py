"""A server on its way out: not ready at once, nobody cut off who can be answered, the rest told to ask again."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from math import inf

import pytest
from served import Served, says, served, wait_until

from quire.cli.handover import Handover
from quire.cli.listen import Server, Stay
from quire.server import leaving
from quire.server.leaving import Patience
from quire.server.serve import uvicorn_config
from quire.settings import EngineSettings

ENDLESS = says("word " * 50, end=False)
BODY = json.dumps({"prompt": "x", "max_tokens": 400, "ignore_eos": True}).encode()
SHORT = json.dumps({"prompt": "x", "max_tokens": 3}).encode()
STREAM = json.dumps({"prompt": "x", "max_tokens": 60, "ignore_eos": True, "stream": True}).encode()


def post(body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = (
        f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {size}\r\n\r\n"
    )
    return head.encode() + body


READY = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"


class House:
    """A served application that leaves as `quire serve` does."""

    def __init__(self, inner: Served, patience: Patience) -> None:
        self.inner = inner
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        self.address = listener.getsockname()
        self.lifecycle = inner.service.lifecycle
        self.server = Server(
            uvicorn_config(inner.app), lambda: None, Stay(self.lifecycle, patience, Handover([], inner.plan))
        )
        self.serving = asyncio.run_coroutine_threadsafe(self.server.serve([listener]), inner.loop)
        wait_until(lambda: self.server.started)

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.call(lambda: self.server.stop(number))

    def call(self, order: Callable[[], object]) -> None:
        async def obey() -> None:
            order()

        self.inner.do(obey())

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=10)

    def ask(self, data: bytes) -> Peer:
        peer = Peer(self.connect())
        peer.send(data)
        return peer

    def is_over(self) -> bool:
        return self.serving.done()


class Peer:
    """One connection, as bytes."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.got = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def read_until(self, end: bytes) -> bytes:
        while end not in self.got:
            part = self.sock.recv(65536)
            assert part, self.got
            self.got += part
        return self.got

    def read_answer(self) -> bytes:
        """One answer whose length is told."""
        head, _, body = self.read_until(b"\r\n\r\n").partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(body) < length:
            body += self.sock.recv(65536)
        self.got = b""
        return head + b"\r\n\r\n" + body

    def read_all(self) -> bytes:
        """Until the server closes."""
        with self.sock:
            while part := self.sock.recv(65536):
                self.got += part
        return self.got


@contextmanager
def house(
    grace_s: float = 0.0, drain_s: float = 10.0, linger_s: float = 0.0, inner: Served | None = None
) -> Iterator[House]:
    with served(ENDLESS) if inner is None else nullcontext(inner) as given:
        it = House(given, Patience(grace_s, drain_s, linger_s))
        try:
            yield it
        finally:
            it.inner.runner.gate.set()
            it.inner.loop.call_soon_threadsafe(it.server.stop, signal.SIGTERM)
            it.inner.loop.call_soon_threadsafe(it.server.stop, signal.SIGTERM)
            it.serving.result(20)
            assert it.inner.service.door.num_inside == 0
            assert not it.server.server_state.tasks


def test_within_grace_it_is_not_ready_and_answers_everything() -> None:
    with house(grace_s=30.0) as it:
        kept = it.ask(READY)
        assert kept.read_answer().startswith(b"HTTP/1.1 200")
        it.signal()
        kept.send(post(SHORT))
        last = kept.read_all().lower()
        assert last.startswith(b"http/1.1 200")
        assert b"connection: close" in last
        fresh = it.ask(READY).read_all().lower()
        assert fresh.startswith(b"http/1.1 503")
        assert b"retry-after: 1" in fresh
        assert it.ask(post(SHORT)).read_all().startswith(b"HTTP/1.1 200")
        assert not it.is_over()


def test_open_answers_go_on_while_nobody_new_comes_in(capsys: pytest.CaptureFixture[str]) -> None:
    with house() as it:
        it.inner.runner.gate.clear()
        stream, whole = it.ask(post(STREAM)), it.ask(post(BODY))
        wait_until(lambda: it.inner.client.num_open == 2)
        it.signal()
        wait_until(lambda: not it.server.servers[0].is_serving())
        with pytest.raises(ConnectionRefusedError):
            it.connect()
        assert not it.is_over()
        it.inner.runner.gate.set()
        assert stream.read_all().endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        assert whole.read_all().startswith(b"HTTP/1.1 200")
        it.serving.result(10)
        assert it.server.exit_code == 0
    said = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in said] == ["leaving", "draining", "ended"]
    assert "SIGTERM: not ready; no new requests, 2 requests open" in said[0]
    assert said[1].endswith("2 requests open, at most 10 s more")


def test_what_does_not_end_in_time_is_told_to_ask_again(capsys: pytest.CaptureFixture[str]) -> None:
    engine = EngineSettings(max_model_len=512, max_num_seqs=2, max_num_batched_tokens=64)
    with served(ENDLESS, engine) as inner, house(drain_s=0.1, inner=inner) as it:
        stream = it.ask(post(STREAM))
        stream.read_until(b"data: ")
        inner.runner.gate.clear()
        whole, queued = it.ask(post(BODY)), it.ask(post(BODY))
        wait_until(lambda: inner.client.num_open == 3)
        sending = it.ask(post(b'{"prompt', length=100))
        wait_until(lambda: it.lifecycle.num_open == 4)
        it.signal()
        told = stream.read_all()
        assert told.endswith(b"}\n\n\r\n0\r\n\r\n")
        last = json.loads(told.split(b"data: ")[-1].split(b"\n")[0])
        assert last["error"]["code"] == "shutting_down"
        for peer in (whole, queued, sending):
            said = peer.read_all().lower()
            assert said.startswith(b"http/1.1 503")
            assert b"retry-after: 1" in said
            assert b"connection: close" in said
            assert b"shutting_down" in said
        it.serving.result(10)
        assert inner.client.num_open == 0
        inner.runner.gate.set()
        wait_until(inner.is_idle)
        assert inner.engine.scheduler.cache_use().num_used == 0
    said = capsys.readouterr().err.splitlines()
    assert said[-2:] == [
        "ending   4 requests could not be finished and were told to ask again",
        "ended    4 requests cut short",
    ]


def test_a_second_order_does_not_wait() -> None:
    with house(grace_s=1000.0, drain_s=1000.0) as it:
        stream = it.ask(post(STREAM))
        stream.read_until(b"data: ")
        it.inner.runner.gate.clear()
        it.signal()
        assert not it.is_over()
        it.signal(signal.SIGINT)
        assert b"shutting_down" in stream.read_all()
        it.serving.result(10)
        assert it.server.exit_code == 0, "the first order counts"


def test_one_that_reads_nothing_is_cut_off_at_the_third_order() -> None:
    with house(drain_s=1000.0) as it:
        silent = it.connect()
        silent.sendall(b"POST /v1/comp")
        wait_until(lambda: it.server.server_state.connections)
        for _ in range(3):
            it.signal()
        it.serving.result(10)
        assert silent.recv(10) == b""
        silent.close()


def test_a_terminal_is_left_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "QUICK_S", 0.05)
    with house(grace_s=1000.0, drain_s=1000.0) as it:
        stream = it.ask(post(STREAM))
        stream.read_until(b"data: ")
        it.inner.runner.gate.clear()
        it.signal(signal.SIGINT)
        assert b"shutting_down" in stream.read_all()
        it.serving.result(10)
        assert it.server.exit_code == 130


def test_a_connection_without_a_request_may_still_send_one_for_a_while() -> None:
    with house(linger_s=1000.0) as it:
        kept = it.ask(READY)
        kept.read_answer()
        fresh = Peer(it.connect())
        wait_until(lambda: len(it.server.server_state.connections) == 2)
        it.signal()
        wait_until(lambda: not it.server.servers[0].is_serving())
        for peer in (kept, fresh):
            peer.send(post(SHORT))
            assert peer.read_all().startswith(b"HTTP/1.1 200")
        it.serving.result(10)
    with house() as it:
        kept = it.ask(READY)
        kept.read_answer()
        it.signal()
        assert kept.read_all() == b""


def test_connections_that_the_kernel_has_taken_are_answered() -> None:
    with house(linger_s=1000.0) as it:
        peers: list[Peer] = []

        def come_and_stop() -> None:
            peers.extend(it.ask(post(SHORT)) for _ in range(50))  # within the loop: it cannot accept them yet
            it.server.stop(signal.SIGTERM)

        it.call(come_and_stop)
        assert all(peer.read_all().startswith(b"HTTP/1.1 200") for peer in peers)
        it.serving.result(10)


def test_beside_a_successor_the_address_stays_ready_and_nothing_is_cut_off_by_time() -> None:
    with house() as it:
        stream, kept = it.ask(post(STREAM)), it.ask(READY)
        kept.read_answer()
        stream.read_until(b"data: ")
        it.inner.runner.gate.clear()

        def hand_over() -> None:
            it.server._leaving.order("a test", Patience(0.0, inf, 1000.0), lambda connection: False)
            it.server.should_exit = True

        it.call(hand_over)
        kept.send(READY)
        assert kept.read_all().startswith(b"HTTP/1.1 200")
        wait_until(lambda: not it.server.servers[0].is_serving())
        it.inner.runner.gate.set()
        assert stream.read_until(b"[DONE]")
        stream.send(post(SHORT))  # it was told that its connection stays open
        assert stream.read_all().count(b"HTTP/1.1 200") == 2
        it.serving.result(10)


def test_an_order_to_leave_counts_beside_a_successor_too() -> None:
    with house(drain_s=0.05) as it:
        stream = it.ask(post(STREAM))
        stream.read_until(b"data: ")
        it.inner.runner.gate.clear()

        def hand_over() -> None:
            it.server._leaving.order("a test", leaving.AFTER_HANDOVER, lambda connection: False)
            it.server.should_exit = True

        it.call(hand_over)
        it.signal()
        assert b"shutting_down" in stream.read_all()
        it.serving.result(10)
