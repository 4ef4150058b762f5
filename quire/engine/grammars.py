"""Grammars kept in this process, by one thread beside the one that steps: for `LLM`, tests and small tools.

Knows: the model's folder, and how to be asked. Does not know: budgets of time (`grammar_process.py` has them; here
whoever sends a grammar waits for it himself).
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from quire.errors import QuireError
from quire.request import Constraint
from quire.structured.order import Masked, MaskOrder

if TYPE_CHECKING:  # the library behind them is loaded with the first grammar
    from quire.structured.matchers import Matchers

Told = Callable[[QuireError | None], None]


class Grammars(Protocol):
    """A keeper of grammars as an engine needs it; `rows`, `begin` and `wait` are the runner's side of it."""

    @property
    def rows(self) -> memoryview:
        """All masks, one row after another."""
        ...

    def warm(self) -> None:
        """Read the vocabulary now, beside all else, so that the first grammar need not wait for it."""
        ...

    def prepare(self, constraint: Constraint, told: Told, is_known: bool = False) -> None:
        """Compile, beside all else; `told` hears None, or why it cannot be done, from any thread. `is_known`: it has
        been compiled before."""
        ...

    def begin(self, order: MaskOrder) -> None:
        """Start on a step's masks; never waits."""
        ...

    def wait(self) -> Masked:
        """Wait for them."""
        ...

    def close(self) -> None:
        """Let everything go."""
        ...


class ThreadKeeper:
    """Grammars in a thread. The vocabulary is read with the first one."""

    def __init__(self, folder: Path, vocab_size: int, eos_ids: tuple[int, ...], num_rows: int) -> None:
        self._folder, self._vocab_size, self._eos_ids = folder, vocab_size, eos_ids
        self._rows = memoryview(bytearray(num_rows * (-(-vocab_size // 32) * 4)))
        self._thread = ThreadPoolExecutor(1, "quire-grammars")
        self._matchers: Matchers | None = None
        self._begun: list[Future[Masked]] = []

    @property
    def rows(self) -> memoryview:
        """All masks, one row after another."""
        return self._rows

    def warm(self) -> None:
        """Read it in the thread."""
        self._thread.submit(self._loaded)

    def prepare(self, constraint: Constraint, told: Told, is_known: bool = False) -> None:
        """Compile in the thread."""
        self._thread.submit(self._prepare, constraint, told)

    def begin(self, order: MaskOrder) -> None:
        """Start on a step's masks."""
        self._begun.append(self._thread.submit(self._obey, order))

    def wait(self) -> Masked:
        """Wait for them."""
        masked = Masked()
        while self._begun:
            masked = self._begun.pop(0).result()
        return masked

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    def _prepare(self, constraint: Constraint, told: Told) -> None:
        try:
            self._compile(constraint)
        except QuireError as error:
            told(error)
        else:
            told(None)

    def _compile(self, constraint: Constraint) -> None:
        self._loaded().cache.get(constraint.owner, constraint.grammar)

    def _obey(self, order: MaskOrder) -> Masked:
        return self._loaded().obey(order, self._rows)

    def _loaded(self) -> Matchers:
        if self._matchers is None:
            self._matchers = load_matchers(self._folder, self._vocab_size, self._eos_ids)
        return self._matchers


def compile_with(grammars: Grammars, constraint: Constraint) -> None:
    """Compile and wait for it. Raises `RequestError`."""
    news: queue.SimpleQueue[QuireError | None] = queue.SimpleQueue()
    grammars.prepare(constraint, news.put)
    error = news.get()
    if error is not None:
        raise error


def load_matchers(folder: Path, vocab_size: int, eos_ids: tuple[int, ...]) -> Matchers:
    """The model's vocabulary read, and nothing compiled yet."""
    from quire.structured.grammar import GrammarCache
    from quire.structured.matchers import Matchers
    from quire.structured.vocabulary import Vocabulary
    from quire.text.tokenizer import Tokenizer

    return Matchers(GrammarCache(Vocabulary(Tokenizer.from_folder(folder), vocab_size, eos_ids)))
