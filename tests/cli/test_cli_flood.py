"""A flood beside one who asks seldom: the lean client against a real socket, and figures by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from quire.cli.bench.flood_load import FloodLoad, report
from quire.cli.bench.http_client import Outcome, Target
from quire.cli.bench.lean_client import LeanClient
from quire.cli.bench.workload import Ask
from quire.cli.main import app
from quire.errors import InvalidSetting

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
REFUSED = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 5\r\n\r\nabcde"
USAGE = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}


def chunk(event: object) -> bytes:
    data = b"data: " + (event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n\n"
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def word(text: str) -> bytes:
    return chunk({"choices": [{"text": text}]})


END = chunk(USAGE) + chunk(b"[DONE]") + b"0\r\n\r\n"


async def asked(answers: Sequence[Sequence[bytes]]) -> tuple[list[Outcome], int]:
    """What a client sees of a server that gives `answers`, one a request, in these pieces; and its connections."""
    left, num_connections = list(answers), 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal num_connections
        num_connections += 1
        while left:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            assert json.loads(await reader.readexactly(length))["prompt"] == "hello"
            for piece in left.pop(0):
                writer.write(piece)
                await asyncio.sleep(0.005)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = LeanClient(Target(f"http://127.0.0.1:{port}", "m"))
    outcomes = [await client.send(Ask(0.0, "hello", 3), 0.0) for _ in answers]
    client.close()
    server.close()
    await asyncio.sleep(0.02)  # until the writers are gone
    return outcomes, num_connections


def test_a_stream_is_read_to_its_end_and_its_connection_used_again() -> None:
    whole = [HEAD, word(""), word("a"), word("b"), END]
    outcomes, num_connections = asyncio.run(asked([whole, [REFUSED], [HEAD[:20], HEAD[20:] + word("a"), END]]))
    assert [each.failure for each in outcomes] == [None, "HTTP 429", None]
    assert len(outcomes[0].chunk_s) == 2, "text counts; what is empty does not"
    assert outcomes[0].chunk_s == sorted(outcomes[0].chunk_s)
    assert (outcomes[0].num_prompt_tokens, outcomes[0].num_output_tokens) == (7, 3)
    assert len(outcomes[2].chunk_s) == 1
    assert num_connections == 1


def test_a_connection_that_breaks_is_a_failure() -> None:
    outcomes, _ = asyncio.run(asked([[HEAD, word("a")]]))
    assert outcomes[0].failure == "the connection was lost"
    nobody = asyncio.run(LeanClient(Target("http://127.0.0.1:1", "m")).send(Ask(0.0, "hello", 3), 0.0))
    assert nobody.failure == "ConnectionRefusedError"
    with pytest.raises(InvalidSetting, match="plain HTTP"):
        LeanClient(Target("https://127.0.0.1:1", "m"))


def test_figures_of_a_flood_by_hand() -> None:
    alone = [Outcome(0.0, chunk_s=[0.2])]
    beside = [Outcome(0.0, chunk_s=[0.4, 0.5], end_s=0.5), Outcome(1.0, chunk_s=[1.2], end_s=1.2)]
    flooded = [
        Outcome(0.0, chunk_s=[4.0, 5.1, 5.2, 6.9, 7.5], end_s=7.5),
        Outcome(4.0, chunk_s=[5.0, 5.1], end_s=5.1),
        Outcome(5.5, failure="HTTP 429", end_s=5.6),
    ]
    found = report(alone, beside, flooded, 5.0, 7.0)
    assert found["flood_inter_token_s"]["max"] == pytest.approx(1.7)
    assert found["answers_per_s"] == pytest.approx((2 + 1) / 2), "only what ended within"
    assert found["output_tokens_per_s"] == pytest.approx((3 + 2 + 3) / 2)
    assert found["bound_s"] == pytest.approx(1.5 * 0.2 + 2 * found["flood_inter_token_s"]["p99"], rel=1e-3)
    assert found["met"] is True
    assert found["flood_failures"] == {"HTTP 429": 1}
    late = [replace(beside[0], chunk_s=[9.0])]
    assert report(alone, late, flooded, 5.0, 7.0)["met"] is False
    assert report([], beside, [], 5.0, 7.0)["met"] is None


def test_a_load_that_cannot_be_meant_is_refused() -> None:
    for bad in (FloodLoad(rate=0.0), FloodLoad(flood_rate=float("inf")), FloodLoad(alone_seconds=-1.0)):
        with pytest.raises(InvalidSetting):
            bad.check()
    shown = CliRunner().invoke(app, ["bench", "flood", "--rate", "0"])
    assert shown.exit_code != 0
    assert "--rate is out of range" in shown.output
