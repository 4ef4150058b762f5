"""The one handler and the one line format: `time level event key=value ...` on stderr.

Knows: how a line is written. Does not know: what happened, or any prompt: callers pass numbers, ids and names only.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from typing import TextIO

from quire.observe.lines import Lines

ROOT = "quire"
FOREIGN = ("uvicorn", "uvicorn.error", "uvicorn.asgi")
LEVELS = ("debug", "info", "warning", "error", "critical")
MAX_VALUE_CHARACTERS = 300
_PLAIN = re.compile(r"[A-Za-z0-9_./:,@+\-]+")


class LineFormat(logging.Formatter):
    """One line a record; a traceback follows on lines of its own, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """`2026-01-31T12:00:00.123Z info event key=value`."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        head = f"{moment}.{int(record.msecs):03d}Z {record.levelname.lower()} {_one_line(record.getMessage())}"
        line = " ".join([head, *pairs(getattr(record, "fields", {}))])
        if record.exc_info:
            line += "\n  " + self.formatException(record.exc_info).replace("\n", "\n  ")
        return line


class LineHandler(logging.Handler):
    """Writes records as lines without waiting for their reader; what was lost is told once there is room again."""

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._lines = Lines(stream)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, or lose it."""
        try:
            if self._lines.num_lost and self._lines.can_take():
                self._lines.tell(self.format(_lost(self._lines.forget())))
            self._lines.tell(self.format(record))
        except Exception:  # noqa: BLE001 - as logging's own handlers do: what is said may never break who says it
            self.handleError(record)


def _lost(num: int) -> logging.LogRecord:
    fields = {"lines": num, "why": "nobody read stderr"}
    about = {
        "name": ROOT,
        "levelno": logging.WARNING,
        "levelname": "WARNING",
        "msg": "log_lines_lost",
        "fields": fields,
    }
    return logging.makeLogRecord(about)


def set_up(level: str = "info", stream: TextIO | None = None) -> logging.Handler:
    """Point our loggers, and the HTTP server's, at one handler on `stream` (stderr). Calling it again replaces it.

    The HTTP server's own lines are shown from `warning` on (from `debug` on where that is the level).
    """
    handler = LineHandler(stream or sys.stderr)
    handler.setFormatter(LineFormat())
    for name in (ROOT, *FOREIGN):
        logger = logging.getLogger(name)
        logger.handlers = [handler] if name in (ROOT, FOREIGN[0]) else []
        logger.propagate = name not in (ROOT, FOREIGN[0])
    threshold = getattr(logging, level.upper())
    logging.getLogger(ROOT).setLevel(threshold)
    for name in FOREIGN:
        logging.getLogger(name).setLevel(threshold if level == "debug" else max(threshold, logging.WARNING))
    return handler


def get(name: str) -> logging.Logger:
    """The logger of one part: `quire.<name>`."""
    return logging.getLogger(f"{ROOT}.{name}")


def say(logger: logging.Logger, level: int, event: str, **fields: object) -> None:
    """Log `event` with its fields; fields that are None are left out."""
    if logger.isEnabledFor(level):
        logger.log(level, event, extra={"fields": fields})


def pairs(fields: Mapping[str, object]) -> list[str]:
    """`key=value` for every field that is not None, quoted where a reader could be misled."""
    return [f"{key}={_value(value)}" for key, value in fields.items() if value is not None]


def _value(value: object) -> str:
    text = f"{value:.4f}" if isinstance(value, float) else str(value)
    text = text if len(text) <= MAX_VALUE_CHARACTERS else text[: MAX_VALUE_CHARACTERS - 1] + "…"
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _one_line(text: str) -> str:
    """Line breaks and control characters of foreign text, escaped."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
