"""The one log format: a line an event, values that cannot mislead, a single handler."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quire.observe import log


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in (log.ROOT, *log.FOREIGN)]
    kept = [(logger, logger.handlers, logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, handlers, level, propagate in kept:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_a_line_has_time_level_event_and_fields() -> None:
    stream = io.StringIO()
    log.set_up("info", stream)
    log.say(log.get("access"), logging.INFO, "request", id="a-1", ttft_s=0.12345, absent=None, name="two words")
    assert re.fullmatch(
        r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info request id=a-1 ttft_s=0\.1235 name="two words"\n',
        stream.getvalue(),
    )


def test_levels_and_setting_up_twice() -> None:
    first, second = io.StringIO(), io.StringIO()
    log.set_up("info", first)
    log.set_up("warning", second)
    log.say(log.get("x"), logging.INFO, "quiet")
    log.say(log.get("x"), logging.WARNING, "loud")
    assert first.getvalue() == ""
    assert second.getvalue().count("\n") == 1


def test_the_http_server_is_heard_from_warning_on() -> None:
    stream = io.StringIO()
    log.set_up("info", stream)
    logging.getLogger("uvicorn.error").info("Uvicorn running")
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    assert "running" not in stream.getvalue()
    assert stream.getvalue().count("\n") == 1


@given(text=st.text(st.characters(exclude_categories=()), max_size=400))
def test_no_value_can_begin_a_line_or_another_field(text: str) -> None:
    (pair,) = log.pairs({"key": text})
    assert pair.isprintable()
    assert "\n" not in pair
    assert pair.isascii() or pair.startswith('key="')
    if " " in text[:200]:
        assert pair.startswith('key="')


def test_a_traceback_follows_indented() -> None:
    stream = io.StringIO()
    log.set_up("info", stream)
    try:
        raise KeyError("x")
    except KeyError:
        log.get("x").exception("it broke\nbadly")
    head, *rest = stream.getvalue().splitlines()
    assert head.endswith("error it broke\\nbadly")
    assert all(line.startswith("  ") for line in rest)
