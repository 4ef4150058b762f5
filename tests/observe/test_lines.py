"""Lines to a stderr that is full, gone, closed, or no file at all: nobody waits, and losses are told."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator
from typing import TextIO

import pytest

from quire.observe import log
from quire.observe.lines import Lines

Pipe = tuple[int, TextIO]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    read_end, write_end = os.pipe()
    with open(write_end, "w", encoding="utf-8") as stream:
        yield read_end, stream
    os.close(read_end)


def fill(lines: Lines) -> int:
    """Write until a line is lost; how many were not."""
    num = 0
    while not lines.num_lost:
        lines.tell("x" * 99)
        num += 1
    return num - 1


def drained(read_end: int) -> str:
    os.set_blocking(read_end, False)
    parts = []
    try:
        while data := os.read(read_end, 2**16):
            parts.append(data)
    except BlockingIOError:
        pass
    return b"".join(parts).decode()


def test_a_full_pipe_loses_lines_and_holds_nobody_up(pipe: Pipe) -> None:
    lines = Lines(pipe[1])
    written = fill(lines)
    assert written > 100
    for _ in range(5):
        lines.tell("another")
    assert lines.num_lost == 6
    assert drained(pipe[0]) == ("x" * 99 + "\n") * written
    lines.tell("again ✓")
    assert drained(pipe[0]) == "again ✓\n"
    assert lines.forget() == 6
    assert lines.num_lost == 0


def test_a_line_longer_than_the_pipe_loses_its_end(pipe: Pipe) -> None:
    lines = Lines(pipe[1])
    lines.tell("y" * 2**20)
    assert lines.num_lost == 1
    assert set(drained(pipe[0])) == {"y"}


def test_a_reader_who_has_left_is_no_error() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with open(write_end, "w", encoding="utf-8") as stream:
        lines = Lines(stream)
        lines.tell("anybody?")
        assert lines.num_lost == 1


def test_no_stream_and_a_closed_one_lose_everything() -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed):
        lines = Lines(stream)
        lines.tell("x")
        assert not lines.can_take()
        assert lines.num_lost == 1


def test_text_in_memory_takes_everything() -> None:
    stream = io.StringIO()
    Lines(stream).tell("x")
    assert stream.getvalue() == "x\n"


def test_the_log_tells_what_it_lost(pipe: Pipe) -> None:
    handler = log.LineHandler(pipe[1])
    handler.setFormatter(log.LineFormat())
    record = logging.makeLogRecord(
        {"name": "quire.x", "levelname": "INFO", "msg": "request", "fields": {"id": "a" * 200}}
    )
    for _ in range(2000):
        handler.emit(record)
    first = drained(pipe[0])
    assert "log_lines_lost" not in first
    lost = 2000 - first.count("\n")
    handler.emit(record)
    told = drained(pipe[0]).splitlines()
    assert len(told) == 2
    assert f'warning log_lines_lost lines={lost} why="nobody read stderr"' in told[0]
    assert "info request" in told[1]
