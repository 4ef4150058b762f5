"""An answer's text as it comes, told apart into content, reasoning and calls, by the description of its format.

Laws: however the text is cut, the same is said; what was said is never taken back; no mark is ever in content. What
looks like a call and is none stays content, without its marks. White space beside a mark is dropped, except where it
stands between two pieces of content.

Knows: marks in content and reasoning. Does not know: patterns of calls (`calls.py`), ids, HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol

from quire.text.formats.calls import CallReader, Tools
from quire.text.formats.channels import ChannelParser
from quire.text.formats.dialect import Calls, Format
from quire.text.formats.marks import Marks, WithoutMarks
from quire.text.formats.said import Content, Said, Thought, joined
from quire.text.formats.source import Source, Wait


class Parser(Protocol):
    """What is said, piece by piece. `in_thought`: the last text was reasoning. `num_calls`: calls told so far.

    `is_whole`: the last call came to its end.
    """

    @property
    def in_thought(self) -> bool:
        """Whether the answer is inside its reasoning."""
        ...

    @property
    def num_calls(self) -> int:
        """Calls told so far."""
        ...

    @property
    def is_whole(self) -> bool:
        """Whether the last call came to its end."""
        ...

    def feed(self, text: str) -> list[Said]:
        """What became certain with `text`."""
        ...

    def end(self) -> list[Said]:
        """What was held back, once no more text will come."""
        ...


def open_parser(form: Format, tools: Mapping[str, Any] | None = None, *, in_thought: bool = False) -> Parser:
    """A parser at the start of an answer. tools: names to schemas of arguments; without any, calls are not looked for.

    in_thought: the prompt has opened the reasoning.
    """
    if form.channels is not None:
        return ChannelParser(form.channels, tools or {})
    return FormatParser(form if tools else replace(form, calls=None), tools or {}, in_thought)


def starts_in_thought(form: Format, prompt: str) -> bool:
    """Whether a prompt's text ends inside reasoning that it has opened."""
    return form.reasoning is not None and prompt.rstrip().endswith(form.reasoning.opens)


class FormatParser:
    """Marks around reasoning and calls, content everywhere else."""

    def __init__(self, form: Format, tools: Tools, in_thought: bool) -> None:
        self._form = form
        self._marks = Marks(form.marks)
        self._content = WithoutMarks(self._marks)
        self._source = Source()
        self._said: list[Said] = []
        self._space = ""  # white space that may turn out to stand beside a mark
        self._is_after_mark = in_thought
        self._has_content = False
        self.in_thought = in_thought
        self._calls = _reader(form.calls, tools, self._source, self._said.append)
        self._work: Iterator[None] = self._run()

    @property
    def num_calls(self) -> int:
        """Calls told so far."""
        return 0 if self._calls is None else self._calls.num_calls

    @property
    def is_whole(self) -> bool:
        """Whether the last call came to its end."""
        return self._calls is not None and self._calls.is_whole

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
        may_be_bare = self._calls is not None and self._form.calls is not None and self._form.calls.bare
        while True:
            if may_be_bare and not self.in_thought:
                may_be_bare = yield from self._bare()
                continue
            mark, place = self._marks.find(source.text, source.at)
            self._text(source.take(place - source.at))
            if mark:
                may_be_bare = (yield from self._at_mark(mark)) and may_be_bare
            elif source.ended:
                self._text(source.take(len(source.text) - source.at))
                self._finish()
                return
            else:
                yield

    def _bare(self) -> Wait[bool]:
        """A call without a mark, at the answer's start. Whether it may still come: after a mark that said nothing."""
        self._space += yield from self._source.space()
        mark = yield from self._marks.here(self._source)
        if mark:
            return (yield from self._at_mark(mark))
        yield from self._section()
        return False

    def _at_mark(self, mark: str) -> Wait[bool]:
        """What a mark means. Whether nothing has been said by it."""
        reasoning, calls = self._form.reasoning, self._form.calls
        if self.in_thought and reasoning is not None and mark not in reasoning.marks:
            self._text(self._source.take(len(mark)))
            return True
        if calls is not None and mark in calls.starts:
            if calls.is_list:
                self._pass(mark)
            if not (yield from self._section()) and not calls.is_list:
                self._pass(mark)
            return False
        self._pass(mark)
        if reasoning is not None and mark in (reasoning.opens, reasoning.closes):
            self.in_thought = mark == reasoning.opens
        return True

    def _section(self) -> Wait[bool]:
        """Whether a call was told."""
        if self._calls is None:
            return False
        before = self._calls.num_calls
        yield from self._calls.section()
        if self._calls.num_calls == before:
            return False
        self._beside_mark()
        return True

    def _pass(self, mark: str) -> None:
        self._source.at += len(mark)
        self._beside_mark()

    def _beside_mark(self) -> None:
        self._space, self._is_after_mark = "", True

    def _text(self, text: str) -> None:
        """Tell text without the white space at its end, which may stand before a mark."""
        solid = (self._space + text).rstrip()
        space = (self._space + text)[len(solid) :]
        if solid:
            if self._is_after_mark and (self.in_thought or not self._has_content):
                solid = solid.lstrip()
            self._say(solid)
            self._has_content = self._has_content or not self.in_thought
            self._is_after_mark = False
        self._space = space

    def _say(self, text: str) -> None:
        if self.in_thought:
            self._said.append(Thought(text))
        elif told := self._content.push(text):
            self._said.append(Content(told))

    def _finish(self) -> None:
        space = "" if self._is_after_mark or self.in_thought else self._space
        if told := self._content.end() + space:
            self._said.append(Content(told))


def _reader(calls: Calls | None, tools: Tools, source: Source, tell: Any) -> CallReader | None:
    return None if calls is None else CallReader(calls, tools, source, tell)
