"""HTTP/1.1 that forgives nothing: a connection that ends anywhere but where it may is an error.

Knows: bytes, connections that are kept, server-sent events. Does not know: who asks for what.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any


class Broken(Exception):
    """The server did not do what HTTP promises."""


@dataclass(frozen=True)
class Answer:
    """Status, headers in lower case, and the whole body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def texts(self) -> list[tuple[str, str | None]]:
        """Text and reason for the end of each choice, streamed or not. Raises `Broken` for half a stream."""
        if self.status != 200:
            raise Broken(f"status {self.status}: {self.body[:300]!r}")
        if "event-stream" not in self.headers.get("content-type", ""):
            choices = json.loads(self.body)["choices"]
            return [(_text(choice), choice["finish_reason"]) for choice in choices]
        told: dict[int, tuple[str, str | None]] = {}
        events = [event.removeprefix(b"data: ") for event in self.body.split(b"\n\n") if event]
        if not events or events[-1] != b"[DONE]":
            raise Broken(f"the stream ends with {events[-1:]}")
        for event in events[:-1]:
            for choice in json.loads(event)["choices"]:
                text, finish = told.get(choice["index"], ("", None))
                told[choice["index"]] = text + _text(choice), choice["finish_reason"] or finish
        return [told[index] for index in sorted(told)]


def _text(choice: dict[str, Any]) -> str:
    if "text" in choice:
        return choice["text"]
    part = choice["delta"] if "delta" in choice else choice["message"]
    return part.get("content") or ""


def request(path: str, body: bytes | None = None, **headers: str) -> bytes:
    """The bytes of a request: GET without a body, else POST."""
    lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", "host: localhost"]
    if body is not None:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


class Connection:
    """`ask`, as long as `is_open`: what the server has closed, or said that it will, is not used again."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._is_last = False

    @classmethod
    async def to(cls, address: tuple[str, int]) -> Connection:
        """A new one."""
        return cls(*await asyncio.open_connection(*address))

    @property
    def is_open(self) -> bool:
        """Whether a client that keeps connections would use it for another request."""
        return not self._is_last and not self._reader.at_eof() and not self._writer.is_closing()

    async def ask(self, data: bytes) -> Answer:
        """Send a request and read its answer to the end. Raises `Broken` or `OSError`."""
        try:
            self._writer.write(data)
            await self._writer.drain()
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            self._is_last = "close" in headers.get("connection", "").lower()
            if headers.get("transfer-encoding") == "chunked":
                body = b"".join([part async for part in self._parts()])
            else:
                body = await self._reader.readexactly(int(headers["content-length"]))
        except (asyncio.IncompleteReadError, KeyError, ValueError) as problem:
            raise Broken(f"{type(problem).__name__}: {problem}") from problem
        return Answer(int(head[0].split()[1]), headers, body)

    async def _parts(self) -> Any:
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            part = await self._reader.readexactly(size + 2)
            yield part[:-2]
        await self._reader.readexactly(2)

    def close(self) -> None:
        """End it."""
        self._writer.close()
