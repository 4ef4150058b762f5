"""Grammars that an engine was asked to compile: who waits for which, and which need not be asked for again.

Knows: constraints, questions and answers. Does not know: who compiles, or whether that is still the one that was asked.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from quire.engine.messages import Prepare, Prepared
from quire.engine.wire import rebuild
from quire.errors import QuireError
from quire.request import Constraint

MAX_PREPARED = 256

Told = Callable[[QuireError | None], None]


class Preparing:
    """`send` carries a question; where there is nobody to ask it is dropped, and `ask_again` asks whoever comes."""

    def __init__(self, send: Callable[[Prepare], None]) -> None:
        self._send = send
        self._waiting: dict[Constraint, asyncio.Future[None]] = {}
        self._known: set[Constraint] = set()  # of those that are waited for
        self._done: OrderedDict[Constraint, None] = OrderedDict()
        self._questions: dict[str, Constraint] = {}
        self._num_questions = 0

    def __contains__(self, constraint: Constraint) -> bool:
        return constraint in self._done

    async def wait_for(self, constraint: Constraint) -> None:
        """Until it is compiled. Raises why it cannot be."""
        if constraint in self._done:
            self._done.move_to_end(constraint)
            return
        await asyncio.shield(self._asked(constraint))

    def then(self, constraint: Constraint, told: Told) -> None:
        """The same for who cannot wait, and had it before: `told` hears None, or why it cannot be."""
        if constraint not in self._waiting:
            self._known.add(constraint)
        self._asked(constraint).add_done_callback(lambda answer: told(_error_of(answer)))

    def answer(self, message: Prepared) -> None:
        """What the engine says."""
        constraint = self._questions.pop(message.id, None)
        waiting = None if constraint is None else self._waiting.pop(constraint, None)
        if constraint is None or waiting is None:
            return
        self._known.discard(constraint)
        if message.kind:
            _refuse(waiting, rebuild(message.kind, message.message))
            return
        self._done[constraint] = None
        if len(self._done) > MAX_PREPARED:
            self._done.popitem(last=False)
        waiting.set_result(None)

    def ask_again(self) -> None:
        """Another engine, which knows no grammar and no question."""
        self._done.clear()
        self._questions.clear()
        for constraint in self._waiting:
            self._ask(constraint)

    def forget(self) -> None:
        """What was compiled is known no more."""
        self._done.clear()

    def fail(self, failure: QuireError) -> None:
        """There will be no answers."""
        waiting, self._waiting = self._waiting, {}
        self._known.clear()
        for answer in waiting.values():
            _refuse(answer, failure)

    def _asked(self, constraint: Constraint) -> asyncio.Future[None]:
        answer = self._waiting.get(constraint)
        if answer is None:
            answer = self._waiting[constraint] = asyncio.get_running_loop().create_future()
            self._ask(constraint)
        return answer

    def _ask(self, constraint: Constraint) -> None:
        self._num_questions += 1
        self._questions[str(self._num_questions)] = constraint
        self._send(Prepare(str(self._num_questions), constraint, constraint in self._known))


def _refuse(answer: asyncio.Future[None], error: QuireError) -> None:
    answer.set_exception(error)
    answer.exception()  # whoever asked may have left


def _error_of(answer: asyncio.Future[None]) -> QuireError | None:
    error = answer.exception()
    return error if isinstance(error, QuireError) else None
