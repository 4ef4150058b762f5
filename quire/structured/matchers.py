"""The matchers of all answers that draw under a grammar: opened, moved on, filled, closed, a step at a time.

Knows: keys, grammars and tokens. Does not know: sequences, or where its masks are read.
"""

from __future__ import annotations

from quire.errors import RequestError
from quire.structured.grammar import GrammarCache
from quire.structured.matcher import Matcher
from quire.structured.order import Masked, MaskOrder


class Matchers:
    """Answers by key."""

    def __init__(self, cache: GrammarCache) -> None:
        self.cache = cache
        self._open: dict[int, Matcher] = {}
        self._lost: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._open)

    def obey(self, order: MaskOrder, rows: memoryview) -> Masked:
        """Fill the rows of `order`; `rows`: all rows, one after another.

        A row that failed holds no bit, and its answer fails from then on.
        """
        for key in order.closes:
            self._open.pop(key, None)
            self._lost.pop(key, None)
        for key, owner, text in order.opens:
            try:
                self._open[key] = Matcher(self.cache.get(owner, text))
            except RequestError as error:
                self._lost[key] = error.message
        failures, forced = [], []
        for key, row, tokens, tells_forced in order.fills:
            size = self.cache.vocabulary.row_bytes
            room = rows[row * size : (row + 1) * size]
            why = self._lost.get(key) or self._fill(key, room, tokens)
            if why is not None:
                room[:] = bytes(size)
                failures.append((row, why))
            elif tells_forced and (ahead := self._open[key].force(room)):
                forced.append((row, ahead))
        return Masked(tuple(failures), tuple(forced))

    def _fill(self, key: int, room: memoryview, tokens: tuple[int, ...]) -> str | None:
        matcher = self._open[key]
        try:
            if tokens:
                matcher.accept(tokens)
            matcher.fill(room)
        except RequestError as error:
            self._lost[key] = error.message
            return error.message
        return None
