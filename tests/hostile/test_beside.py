"""Healthy streams beside hostile requests: what is compared, what is promised, and one real server.

Knows: chaos/. Does not know: how a server is built.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import pytest

from chaos import advisories, entry
from chaos.beside import Turn, gaps_in, keep, keys_file, observe, report, show
from chaos.healthy import Heard, Streams, asks
from chaos.http_text import KEY, stranger
from chaos.sender import Outcome, exchange
from chaos.served import Served, served
from quire.tenancy.keys import read_keys


def heard(data: bytes, failure: str | None = None) -> Heard:
    return Heard("one", [1.0, 1.1, 1.3], data, failure)


def streams_of(*answers: Heard) -> Streams:
    streams = Streams(0, asks(2, 5), 1)
    streams.golden = {"one": heard(b'data: {"id":"a","created":1,"text":"x"}\r\n').said}
    for each in answers:
        streams._judge(each)
    return streams


class Living(Served):
    """This very process, as if it served."""

    def __init__(self, **pids: int | None) -> None:
        self._pids = pids

    @property
    def pids(self) -> dict[str, int | None]:
        """As told."""
        return dict(self._pids)


def test_ids_and_seconds_may_differ_and_nothing_else() -> None:
    same, other = b'data: {"id":"b","created":77,"text":"x"}\r\n', b'data: {"id":"a","created":1,"text":"y"}\r\n'
    streams = streams_of(heard(same), heard(other), heard(same, "the connection was lost"))
    assert streams.num_heard == 3
    assert [each.failure for each in streams.harmed] == ["other bytes than undisturbed", "the connection was lost"]


def test_requests_differ_and_half_are_drawn() -> None:
    made = asks(8, 5)
    assert len({each.request for each in made}) == len({each.name for each in made}) == 8
    assert sum(b'"seed"' in each.request for each in made) == 4
    assert sum(b"logprobs" in each.request for each in made) >= 2


def told(hostile: list[Outcome], *answers: Heard, front: int, now: int) -> dict[str, object]:
    streams = streams_of(*answers)
    turns = [Turn(False, 0.0, 1.2), Turn(True, 1.2, 2.0, hostile)]
    return report(
        streams,
        turns,
        {"front": front, "engine": front, "grammars": None},
        Living(front=now, engine=now, grammars=None),
    )


def test_promises_kept_and_broken(pid: int, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    good = told([Outcome(0, "value", "400", 0.1, 0.0, True)], heard(b'data: {"text":"x"}\n'), front=pid, now=pid)
    assert good["exits"] == []
    bad = [Outcome(1, "advisory:n", "500", 6.0, 0.0, False), Outcome(2, "cut", "200", 0.1, 0.0, True)]
    found = told(bad, heard(b'data: {"text":"y"}\n'), front=pid, now=2**22 + 1)
    assert found["exits"] == ["front", "engine"]
    assert found["server_errors"] == [[1, "advisory:n", "500"]]
    assert [each[0] for each in found["slow"]] == [1]  # type: ignore[attr-defined]
    assert found["by_kind"] == {"advisory": {"500": 1}, "wire": {"200": 1}}
    assert list(found["promises"].values()) == [False] * 4  # type: ignore[attr-defined]
    show(found)
    assert capsys.readouterr().out.count("MISSED") == 4
    entry.write(tmp_path / "corpus", [entry.Entry(f"number {number}", ("x",)) for number in range(3)])
    keep(tmp_path / "kept", found, tmp_path / "corpus", streams_of(heard(b"data: z\n")))
    assert [each.kind for each in entry.read(tmp_path / "kept" / "findings.jsonl")] == ["number 1"]
    assert b"data: z" in (tmp_path / "kept" / "harmed-0.txt").read_bytes()


def test_gaps_belong_to_the_turn_in_which_they_end() -> None:
    streams = streams_of(heard(b""))
    turns = [Turn(False, 0.0, 1.2), Turn(True, 1.2, 2.0)]
    assert gaps_in(streams, turns, False) == [pytest.approx(0.1)]
    assert gaps_in(streams, turns, True) == [pytest.approx(0.2)]


@pytest.fixture
def pid() -> int:
    import os

    return os.getpid()


def test_keys_are_for_everyone(tmp_path: Path) -> None:
    path = keys_file(tmp_path)
    assert len(read_keys(path)) == 65
    assert path.stat().st_mode & 0o077 == 0


def test_a_real_server_answers_one_of_each_class_and_harms_no_stream(tmp_path: Path) -> None:
    some = [row.entries()[0].with_text(KEY, stranger(place)) for place, row in enumerate(advisories.TABLE)]
    path = tmp_path / "corpus.jsonl"
    num = entry.write(path, some)
    args = argparse.Namespace(streams=2, tokens=20, turn=1.0, rate=100.0, undisturbed=0.1, harmless="/health")
    with served("--api-keys", str(keys_file(tmp_path)), "--log-level", "critical") as server:
        before = server.pids
        streams, turns = asyncio.run(observe(server, path, num, args))
        found = report(streams, turns, before, server)
        health = entry.Entry("", ("GET /health HTTP/1.1\r\nHost: x\r\n\r\n",))
        assert asyncio.run(exchange(server.port, health))[0] == "200"
    assert None not in (before["front"], before["engine"])
    assert found["requests"] == num
    assert found["exits"] == found["harmed"] == found["server_errors"] == found["wrong"] == []
    assert found["healthy"] > 4
