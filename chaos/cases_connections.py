"""Clients that read slowly, stop in the middle, or never say anything.

Knows: sockets, what they may cost. Does not know: how the server minds them.
"""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import struct
import time
from collections.abc import Iterator

from chaos import asking
from chaos.asking import Load, complete, during, told
from chaos.case import Case, check, soon
from chaos.http_text import COMPLETIONS, HOST, head
from chaos.served import Served, cpu_s, footprint, served

QUIET = ("--log-level", "warning")
NUM_SLOW, NUM_IDLE, NUM_HALF = 24, 1500, 200
SLOW_BYTES = 24 * 2**20  # more than this may 24 slow readers not cost
HEAD_S = 35.0  # a head that does not come in 30 s is given up
FEW_DESCRIPTORS = 80


@contextlib.contextmanager
def sockets(port: int, num: int, first: bytes = b"", receive_bytes: int | None = None) -> Iterator[list[socket.socket]]:
    """So many connections, each of which has sent `first`; those that cannot be had are left out."""
    _raise_own_limit(num + 200)
    found: list[socket.socket] = []
    try:
        for _ in range(num):
            each = socket.socket()
            if receive_bytes is not None:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            each.settimeout(5.0)
            try:
                each.connect(("127.0.0.1", port))
                each.sendall(first)
            except OSError:
                each.close()
                continue
            found.append(each)
        yield found
    finally:
        for each in found:
            each.close()


def _raise_own_limit(num: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < num:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(num, hard), hard))


def long_answer(num_tokens: int) -> bytes:
    """A request for a long stream with much in each event."""
    body = {"prompt": "Once upon a time", "max_tokens": num_tokens, "stream": True, "ignore_eos": True, "logprobs": 5}
    text = json.dumps(body)
    headers = [("Host", HOST), ("Content-Type", "application/json"), ("Content-Length", str(len(text)))]
    return (head("POST", COMPLETIONS, headers) + text).encode()


def slow_readers() -> str:
    """A byte a second of long answers, out of the smallest buffers."""
    with served(*QUIET) as server:
        during(server.port, Load(after_s=0.5), lambda: None)
        before = footprint(server.process.pid)
        with sockets(server.port, NUM_SLOW, long_answer(2000), receive_bytes=4096) as slow:

            def read_a_little() -> None:
                for _ in range(4):
                    for each in slow:
                        each.recv(1)
                    time.sleep(1.0)

            streams, _ = during(server.port, Load(num_streams=4), read_a_little)
            after = footprint(server.process.pid)
            check(before is not None and after is not None, "the front is gone")
            grown = after.resident_bytes - before.resident_bytes  # type: ignore[union-attr]
            check(not streams.harmed, told(streams))
            check(grown < SLOW_BYTES, f"{NUM_SLOW} slow readers cost {grown / 2**20:.0f} MiB")
        soon(lambda: used_blocks(server) == 0, 5.0, "their blocks are given back when they leave")
        return f"{told(streams)}; {NUM_SLOW} slow readers cost {grown / 2**20:.1f} MiB, their blocks came back"


def used_blocks(server: Served) -> float:
    """KV blocks that requests hold."""
    return asking.metric(server.port, 'quire_kv_blocks{state="used"}')


def half_heads() -> str:
    """Connections whose heads stop in the middle."""
    with served(*QUIET) as server:
        before = footprint(server.process.pid)
        with sockets(server.port, NUM_HALF, b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-") as half:
            check(complete(server.port)[0] == 200, "others are not answered")
            _, seconds = soon(lambda: all(map(_is_shut, half)), HEAD_S, f"{len(half)} unfinished heads are given up")
        soon(lambda: _descriptors(server) <= before.num_descriptors + 3, 5.0, "descriptors go back")  # type: ignore[union-attr]
        return f"{len(half)} given up after {seconds:.0f} s, others were answered, descriptors went back"


def _is_shut(each: socket.socket) -> bool:
    """Whether the server has closed its end."""
    each.setblocking(False)
    try:
        while data := each.recv(4096):
            del data
        return True
    except BlockingIOError:
        return False
    except OSError:
        return True


def _descriptors(server: Served) -> int:
    found = footprint(server.process.pid)
    return 0 if found is None else found.num_descriptors


def half_bodies() -> str:
    """Whole heads, half a body, and then a reset: the sender's machine went down."""
    with served(*QUIET) as server:
        before = _descriptors(server)
        start = long_answer(5)
        with sockets(server.port, NUM_HALF, start[:-20]) as half:
            check(complete(server.port)[0] == 200, "others are not answered")
            for each in half:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        _, seconds = soon(lambda: _descriptors(server) <= before + 3, 5.0, "descriptors go back")
        check(complete(server.port)[0] == 200, "a new request is not answered")
        return f"{len(half)} were reset, descriptors went back after {seconds:.1f} s"


def idle_connections() -> str:
    """More connections than anybody needs, and silence on all of them."""
    with served(*QUIET) as server:
        before = _descriptors(server)
        with sockets(server.port, NUM_IDLE) as idle:
            begin = time.perf_counter()
            status = asking.get(server.port, "/health")
            health_s = time.perf_counter() - begin
            check(status in (200, 503), f"/health says {status}")
            streams, worst_s = (None, 0.0) if status != 200 else during(server.port, Load(num_streams=4), lambda: None)
            check(streams is None or not streams.harmed, "" if streams is None else told(streams))
            used = cpu_s(server.process.pid)
            time.sleep(1.0)
            check(cpu_s(server.process.pid) - used < 0.5, "silence costs processor time")
            num = len(idle)
        soon(lambda: _descriptors(server) <= before + 5, 10.0, "descriptors go back")
        check(asking.get(server.port, "/health") == 200, "/health is not well afterwards")
        return f"{num} idle: /health {status} in {1000 * health_s:.0f} ms, longest pause of streams {worst_s:.2f} s"


def out_of_descriptors() -> str:
    """More connections than the process may have descriptors."""

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FEW_DESCRIPTORS, FEW_DESCRIPTORS))

    with served(*QUIET, before=few) as server:
        check(complete(server.port)[0] == 200, "not answered at the start")
        engine = server.engine
        with sockets(server.port, 3 * FEW_DESCRIPTORS):
            used, begin = cpu_s(server.process.pid), time.monotonic()
            time.sleep(2.0)
            busy = (cpu_s(server.process.pid) - used) / (time.monotonic() - begin)
            check(server.process.poll() is None, f"it ended with {server.process.poll()}")
        _, seconds = soon(lambda: complete(server.port, 3.0)[0] == 200, 10.0, "answers come again")
        check(server.engine == engine, "the engine was started anew")
        check(busy < 0.9, f"{busy:.0%} of a processor while it waits for descriptors")
        lines = len(server.said.splitlines())
        check(lines < 200, f"{lines} lines on stderr")
        return f"{busy:.0%} of a processor meanwhile, {lines} lines on stderr, answers again after {seconds:.1f} s"


CASES = (
    Case("slow readers", f"{NUM_SLOW} of them cost less than {SLOW_BYTES >> 20} MiB, others go on", slow_readers),
    Case("half-open heads", "given up after 30 s, descriptors go back", half_heads),
    Case("half-open bodies", "a reset frees everything at once", half_bodies),
    Case("idle connections", f"{NUM_IDLE} of them harm nobody", idle_connections),
    Case("out of descriptors", "no end, no busy loop, answers again once there are some", out_of_descriptors),
)
