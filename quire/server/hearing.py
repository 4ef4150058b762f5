"""One sample's text as it is heard: content, reasoning and calls, and when there is nothing more to hear.

Knows: the speech of a request. Does not know: tokens' ids, chunks, the engine.
"""

from __future__ import annotations

from quire.server.speech import Speech
from quire.text.formats.said import CallPart, Said, Thought, joined


class Hearing:
    """`take` the text of every token, then `end`. `num_thought` of the tokens were reasoning."""

    def __init__(self, speech: Speech) -> None:
        self._speech = speech
        self._parser = speech.parser()
        self._news: list[Said] = []
        self._is_ended = False
        self.num_thought = 0

    @property
    def has_calls(self) -> bool:
        """Whether a call was told."""
        return self._parser.num_calls > 0

    @property
    def is_over(self) -> bool:
        """Whether the one call that may come has come."""
        return not self._speech.is_many and self.has_calls and self._parser.is_whole

    def take(self, text: str) -> None:
        """The text of one token, "" where it brought none yet."""
        was_thought = self._parser.in_thought
        self._news += self._parser.feed(text)
        self.num_thought += was_thought or self._parser.in_thought

    def end(self) -> None:
        """No more text will come."""
        if not self._is_ended:
            self._is_ended = True
            self._news += self._parser.end()

    def news(self) -> tuple[Said, ...]:
        """What was heard since this was last asked."""
        told = joined([each for each in self._news if self._is_told(each)])
        self._news.clear()
        return tuple(told)

    def _is_told(self, each: Said) -> bool:
        if isinstance(each, Thought):
            return self._speech.tells_thought
        return self._speech.is_many or not isinstance(each, CallPart) or each.index == 0
