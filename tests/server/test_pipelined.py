"""Requests sent before the answer to an earlier one has ended: answered in order, forgotten when who sent them goes."""

from __future__ import annotations

import json

import pytest
from served import says, served, wait_until
from test_draining import ENDLESS, Peer, post
from test_http import connect

from quire.limits import MAX_PIPELINED

LONG = json.dumps({"prompt": "x", "max_tokens": 400, "ignore_eos": True}).encode()
SHORT = json.dumps({"prompt": "x", "max_tokens": 2}).encode()


def test_they_are_answered_in_their_order() -> None:
    with served(ENDLESS) as server:
        peer = Peer(connect(server))
        peer.send(b"".join(post(json.dumps({"prompt": "x", "max_tokens": number}).encode()) for number in range(1, 9)))
        answers = [json.loads(peer.read_answer().partition(b"\r\n\r\n")[2]) for _ in range(8)]
        peer.sock.close()
        assert [answer["usage"]["completion_tokens"] for answer in answers] == list(range(1, 9))


@pytest.mark.parametrize("num_behind", [0, 1, 3, MAX_PIPELINED])
@pytest.mark.parametrize("stream", [True, False])
def test_who_leaves_is_noticed_however_many_wait_behind_it(num_behind: int, stream: bool) -> None:
    with served(ENDLESS) as server:
        first = json.dumps({"prompt": "x", "max_tokens": 400, "ignore_eos": True, "stream": stream}).encode()
        peer = Peer(connect(server))
        peer.send(post(first) + post(LONG) * num_behind)
        wait_until(lambda: server.runner.num_steps > 3)
        server.runner.gate.clear()
        peer.sock.close()
        wait_until(lambda: server.client.num_open == 0)
        standing = server.runner.num_steps
        server.runner.gate.set()
        wait_until(server.is_idle)
        assert server.runner.num_steps <= standing + 1
        assert server.engine.scheduler.cache_use().num_used == 0


def test_too_many_at_once_end_the_connection() -> None:
    with served(says("word " * 50, end=False)) as server:
        server.runner.gate.clear()
        peer = Peer(connect(server))
        peer.send(post(LONG) + post(SHORT) * (MAX_PIPELINED + 1))
        assert peer.read_all() == b""
        server.runner.gate.set()
        wait_until(server.is_idle)
