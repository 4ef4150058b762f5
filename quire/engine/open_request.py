"""One request that somebody waits for: what was told of it, so that another engine can go on where this one stopped.

Knows: a request and the deltas of its samples. Does not know: engines, pipes, or who reads.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from quire.errors import QuireError
from quire.request import Finish, Request, Resumed
from quire.step import FORM_LOST, Delta

MOST_RECALLS = 3


@dataclass(slots=True, eq=False)
class OpenRequest:
    """A stream's side of a request: `news` are for its reader, `told` are the tokens of every sample that goes on.

    `was_sent`: an engine has been asked; `is_sent`: the one of now; `is_wanted`: it will be as soon as its
    grammar is there, which was put off `num_tries` times. `is_heard`: that one has said something of it. Times are on
    the steady clock.

    Where the process that kept its grammar was lost the request is recalled, `MOST_RECALLS` times at most: the engine
    ends every sample of it, which its reader does not hear of, and is then asked for the rest.
    """

    request: Request
    news: asyncio.Queue[Delta | QuireError] = field(default_factory=asyncio.Queue)
    told: dict[int, list[int]] = field(default_factory=dict)
    came_s: float = 0.0
    sent_s: float = 0.0
    was_sent: bool = False
    is_sent: bool = False
    is_heard: bool = False
    is_wanted: bool = False
    num_tries: int = 0
    _recalled: set[int] = field(default_factory=set)
    _num_recalls: int = 0
    _given_up: set[int] = field(default_factory=set)
    _num_prompt_told: int = 0
    _num_cached: int | None = None

    def __post_init__(self) -> None:
        self.told = {index: [] for index in range(self.request.params.n)}

    def hear(self, delta: Delta) -> bool:
        """Pass news on; what comes of a sample that has ended is nobody's business any more. True while it is recalled,
        whenever a sample ends."""
        told = self.told.get(delta.index)
        if told is None:
            return bool(self._recalled)
        self.is_heard = self.is_sent
        if delta.tokens:
            told += delta.tokens
        if delta.prompt_logprobs:
            self._num_prompt_told += len(delta.prompt_logprobs)
        if self._num_cached is None:
            self._num_cached = delta.num_cached
        if delta.finish is not None:
            if self._is_recall(delta):
                self._recalled.add(delta.index)
                return True
            del self.told[delta.index]
        self.news.put_nowait(delta)
        return delta.finish is not None and bool(self._recalled)

    def _is_recall(self, delta: Delta) -> bool:
        if delta.error == FORM_LOST:
            return bool(self._recalled) or self._num_recalls < MOST_RECALLS
        return bool(self._recalled) and delta.finish is Finish.ABORT and delta.index not in self._given_up

    @property
    def has_come_back(self) -> bool:
        """True of a recalled request of which the engine has nothing left."""
        return self._recalled >= set(self.told)

    def begin_anew(self) -> None:
        """It is as if no engine had it; the rest can be asked for."""
        self._recalled.clear()
        self._num_recalls += 1
        self.lose()

    def fail(self, error: QuireError) -> None:
        """End all of it."""
        self.told.clear()
        self.news.put_nowait(error)

    def give_up(self, index: int | None) -> None:
        """Its reader wants no more of sample `index`, or of any; the engine may be lost before it says the end."""
        self._given_up |= set(self.told) if index is None else {index}

    def lose(self) -> None:
        """The engine that it was sent to is gone: samples that nobody wants end here."""
        self.is_sent = self.is_heard = self.is_wanted = False
        self._recalled.clear()
        self.end_given_up()

    def end_given_up(self) -> None:
        """No engine will say it: samples that nobody wants have ended."""
        for index in sorted(self._given_up & set(self.told)):
            self.hear(Delta(self.request.id, index, num_cached=self._num_cached or 0, finish=Finish.ABORT))

    @property
    def is_over(self) -> bool:
        """True when every sample has ended."""
        return not self.told

    def to_send(self) -> Request:
        """What to ask an engine for: all of it, or, where another one was asked before, what is left."""
        if not self.was_sent:
            return self.request
        samples = tuple([(index, tuple(tokens)) for index, tokens in self.told.items()])
        return replace(self.request, resumed=Resumed(samples, self._num_prompt_told, self._num_cached))
