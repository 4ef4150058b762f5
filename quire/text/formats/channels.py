"""Answers that are written as messages in channels (Harmony), told apart like any other.

    <|channel|>analysis<|message|> reasoning <|end|>
    <|start|>assistant<|channel|>commentary to=functions.NAME <|constrain|>json<|message|> arguments <|call|>
    <|start|>assistant<|channel|>final<|message|> content <|return|>

The recipient may stand before the channel too. A call to somebody who is no tool of the request stays content.

Knows: headers and bodies. Does not know: other dialects, ids, HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from quire.text.formats import json_text
from quire.text.formats.calls import Tools
from quire.text.formats.dialect import Channels
from quire.text.formats.marks import Marks, WithoutMarks
from quire.text.formats.said import CallPart, Content, Said, Thought, joined
from quire.text.formats.source import Source, Wait

MAX_HEADER_CHARACTERS = 256
_RECIPIENT = re.compile(r"to=([^\s<]+)")


class ChannelParser:
    """The same as `FormatParser`, for a dialect of channels. The prompt has begun the first header."""

    def __init__(self, channels: Channels, tools: Tools) -> None:
        self._channels, self._tools = channels, tools
        self._marks = Marks(channels.marks)
        self._content = WithoutMarks(self._marks)
        self._source = Source()
        self._said: list[Said] = []
        self._space = ""
        self._told_thought: set[bool] = set()  # whether reasoning, whether content has been told
        self.in_thought = False
        self.num_calls = 0
        self.is_whole = False
        self._work: Iterator[None] = self._run()

    def feed(self, text: str) -> list[Said]:
        """What became certain with `text`."""
        self._source.feed(text)
        return self._told()

    def end(self) -> list[Said]:
        """What was held back, once no more text will come."""
        self._source.ended = True
        return self._told()

    def _told(self) -> list[Said]:
        next(self._work, None)
        told = joined(self._said)
        self._said.clear()
        return told

    def _run(self) -> Wait[None]:
        source = self._source
        while (yield from source.character()):
            header = yield from self._header()
            if header is None:
                mark, place = self._marks.find(source.text, source.at)
                if mark and place == source.at:
                    source.take(len(mark))
                yield from self._body(is_thought=False)
                continue
            channel = self._channel_of(header)
            recipient = _RECIPIENT.search(header)
            if recipient is not None and (yield from self._call(recipient.group(1))):
                continue
            yield from self._body(is_thought=channel == self._channels.thought)
        if held := self._content.end():
            self._said.append(Content(held))

    def _header(self) -> Wait[str | None]:
        """The header of a message, its end mark taken. None, and nothing taken, where a body stands without one."""
        source, channels = self._source, self._channels
        source.keep()
        parts: list[str] = []
        while True:
            mark, place = self._marks.find(source.text, source.at)
            parts.append(source.take(place - source.at))
            if sum(map(len, parts)) > MAX_HEADER_CHARACTERS:
                break
            if mark == channels.message:
                source.take(len(mark))
                source.settle()
                return "".join(parts)
            if mark in (channels.start, channels.channel, channels.constrain):
                parts.append(source.take(len(mark)))
            elif mark or source.ended:
                break
            else:
                yield
        source.restore()
        return None

    def _channel_of(self, header: str) -> str:
        _, found, rest = header.partition(self._channels.channel)
        words = rest.split()
        return words[0].partition("<")[0] if found and words else ""

    def _call(self, recipient: str) -> Wait[bool]:
        """Arguments of a call, up to the message's end; False if it is none, and nothing is taken."""
        name = recipient.removeprefix(self._channels.prefix)
        if name not in self._tools:
            return False
        self._source.keep()
        yield from self._source.space()
        if (yield from self._source.character()) != "{":
            self._source.restore()
            return False
        self._source.settle()
        self.in_thought, self._space = False, ""
        self._said.append(CallPart(self.num_calls, name=name))
        self.num_calls += 1
        self.is_whole = yield from json_text.value(self._source, self._more)
        yield from self._source.space()
        yield from self._source.literal(self._channels.call_end)
        return True

    def _more(self, text: str) -> None:
        self._said.append(CallPart(self.num_calls - 1, text))

    def _body(self, is_thought: bool) -> Wait[None]:
        """Text up to the next message. Marks that do not end it are dropped."""
        source, channels = self._source, self._channels
        self.in_thought, self._space = is_thought, ""
        is_first = True
        while True:
            mark, place = self._marks.find(source.text, source.at)
            is_end = not mark and source.ended
            text = source.take((len(source.text) if is_end else place) - source.at)
            is_first = self._tell(text, is_first)
            if mark in channels.ends:
                source.take(len(mark))
                return
            if is_end:
                if not is_first:
                    self._say(self._space)
                return
            if mark in (channels.start, channels.channel):
                return
            if mark:
                source.take(len(mark))
                self._space = ""
            else:
                yield

    def _tell(self, text: str, is_first: bool) -> bool:
        """Tell text of a body; whether it still has not begun. Messages of one kind are a line apart."""
        text = self._space + text
        solid = text.rstrip()
        self._space = text[len(solid) :]
        if not solid:
            return is_first
        if is_first:
            solid = ("\n" if self.in_thought in self._told_thought else "") + solid.lstrip()
        self._told_thought.add(self.in_thought)
        self._say(solid)
        return False

    def _say(self, text: str) -> None:
        if self.in_thought and text.strip():
            self._said.append(Thought(text))
        elif not self.in_thought and (told := self._content.push(text)):
            self._said.append(Content(told))
