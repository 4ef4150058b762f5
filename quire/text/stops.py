"""Stop strings over a stream of text: what may be sent, and when the text is over.

Knows: characters. Does not know: ids, where the text comes from.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from quire.errors import RequestError


class StopStrings:
    """Finds the first stop string to be completed and never sends part of one.

    The text ends at the earliest character with which any stop string is complete; of several completed by the same
    character the longest counts (it begins earliest). What comes before it is sent, the stop string itself only with
    `include`. The outcome does not depend on how the text is cut into pushes.

    Method: Aho & Corasick, "Efficient string matching" (1975). Building takes time in the total length of the stop
    strings, matching constant amortised time per character, whatever their number.
    """

    def __init__(self, stops: Sequence[str], include: bool = False) -> None:
        """RequestError for an empty stop string, which would end every text before it begins."""
        if "" in stops:
            raise RequestError("a stop string is empty", allowed="strings of at least one character", param="stop")
        self._include = include
        self._children: list[dict[str, int]] = [{}]
        self._depth = [0]
        self._complete: list[str | None] = [None]
        for stop in stops:
            self._insert(stop)
        self._fallback = [0] * len(self._children)
        self._link()
        self._state = 0
        self._held = ""
        self._stopped: str | None = None

    def push(self, text: str) -> tuple[str, str | None]:
        """(what may be sent now, the stop string that ended the text or None). Nothing is sent after the end."""
        if self._stopped is not None:
            return "", self._stopped
        if len(self._children) == 1:
            return text, None
        for index, character in enumerate(text):
            self._advance(character)
            stop = self._complete[self._state]
            if stop is not None:
                return self._end(self._held + text[: index + 1], stop), stop
        text = self._held + text
        cut = len(text) - self._depth[self._state]
        self._held = text[cut:]
        return text[:cut], None

    def flush(self) -> str:
        """What was held back, once no more text will come; "" after a stop string."""
        held, self._held, self._state = self._held, "", 0
        return held

    def _end(self, text: str, stop: str) -> str:
        self._stopped, self._held = stop, ""
        return text if self._include else text[: -len(stop)]

    def _advance(self, character: str) -> None:
        state = self._state
        while state and character not in self._children[state]:
            state = self._fallback[state]
        self._state = self._children[state].get(character, 0)

    def _insert(self, stop: str) -> None:
        state = 0
        for character in stop:
            following = self._children[state].get(character)
            if following is None:
                following = len(self._children)
                self._children[state][character] = following
                self._children.append({})
                self._depth.append(self._depth[state] + 1)
                self._complete.append(None)
            state = following
        self._complete[state] = stop

    def _link(self) -> None:
        """Fallback of a state: the state of its longest proper ending that begins some stop string."""
        queue = deque(self._children[0].values())
        while queue:
            state = queue.popleft()
            for character, following in self._children[state].items():
                fallback = self._fallback[state]
                while fallback and character not in self._children[fallback]:
                    fallback = self._fallback[fallback]
                self._fallback[following] = self._children[fallback].get(character, 0)
                self._complete[following] = self._complete[following] or self._complete[self._fallback[following]]
                queue.append(following)
