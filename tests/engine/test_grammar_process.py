"""Grammars in a process of their own: the same masks, and nothing that a stranger sends keeps anyone waiting."""

from __future__ import annotations

import os
import queue
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import quire
from quire.engine.grammar_credit import REFILL, Credit
from quire.engine.grammar_process import MASK_WAIT_S, ProcessKeeper
from quire.engine.grammars import Grammars, ThreadKeeper, compile_with
from quire.errors import Overloaded, QuireError, RequestError
from quire.form import StructuredOutputsParams
from quire.limits import COMPILE_CPU_S, OWNER_COMPILE_S
from quire.model_spec import read_model_spec
from quire.request import Constraint
from quire.step import FORM_LOST
from quire.structured.order import MaskOrder
from quire.structured.source import grammar_of

BUNDLED = Path(quire.__file__).parent / "bundled"
SPEC = read_model_spec(BUNDLED)
NUM_ROWS = 4
ROW_BYTES = -(-SPEC.vocab_size // 32) * 4
LIMIT_S = 2.0


@pytest.fixture(scope="module")
def keeper() -> Iterator[ProcessKeeper]:
    with_process = ProcessKeeper(BUNDLED, SPEC.vocab_size, SPEC.eos_ids, NUM_ROWS)
    compile_with(with_process, constraint(regex="warm"))
    yield with_process
    with_process.close()


def constraint(owner: str = "", **form: Any) -> Constraint:
    return Constraint(grammar_of(StructuredOutputsParams(**form)), owner)


def masks(keeper: Grammars, order: MaskOrder) -> tuple[list[bytes], tuple[tuple[int, str], ...]]:
    keeper.begin(order)
    failures = keeper.wait().failures
    return [bytes(keeper.rows[fill[1] * ROW_BYTES : (fill[1] + 1) * ROW_BYTES]) for fill in order.fills], failures


def tokens_of(mask: bytes) -> list[int]:
    return [token for token in range(SPEC.vocab_size) if mask[token // 8] >> token % 8 & 1]


def test_masks_are_those_of_a_thread(keeper: ProcessKeeper) -> None:
    thread = ThreadKeeper(BUNDLED, SPEC.vocab_size, SPEC.eos_ids, NUM_ROWS)
    form = constraint(json={"type": "object", "properties": {"a": {"type": "string", "maxLength": 9}}})
    for each in (keeper, thread):
        compile_with(each, form)
    opens = ((101, "", form.grammar), (102, "", form.grammar))
    order = MaskOrder(opens, ((101, 0, (), False), (102, 3, (), False)))
    chosen: list[int] = []
    for _ in range(30):
        found, failures = masks(keeper, order)
        assert (found, failures) == masks(thread, order)
        assert found[0] == found[1]
        allowed = tokens_of(found[0])
        assert allowed
        chosen.append(allowed[len(chosen) * 7 % len(allowed)])
        if chosen[-1] in SPEC.eos_ids:
            break
        order = MaskOrder((), ((101, 0, (chosen[-1],), False), (102, 3, (chosen[-1],), False)))
    assert len(chosen) > 3
    masks(keeper, MaskOrder((), (), (101, 102)))
    thread.close()


HOSTILE: dict[str, dict[str, Any]] = {
    "patterns that meet": {"json": {"type": "object", "patternProperties": {
        f"^(a|b){{{count}}}.*x{count}$": {"type": "string"} for count in range(1, 200)
    }}},
    "patterns that all hold": {"json": {"allOf": [
        {"type": "string", "pattern": f".*a.{{{count}}}b"} for count in range(10, 22)
    ]}},
    "a large divisor": {"json": {"type": "integer", "multipleOf": 99991}},
    "many properties": {"json": {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(8000)}}},
    "alternatives of alternatives": {"json": {"allOf": [
        {"anyOf": [{"properties": {f"p{i}_{j}": {"type": "string"}}} for j in range(4)]} for i in range(12)
    ]}},
    "nested counts": {"regex": "((((a{0,200}){0,200}){0,200}){0,200}){0,200}b"},
    "an intersection of counts": {"grammar": "start: X\nX: " + " & ".join(f"/(.*a.{{{n}}}b)+/" for n in range(20, 40))},
    "a long constant": {"json": {"const": "x" * 200_000}},
    "itself": {"json": {"$ref": "#"}},
}  # fmt: skip


@pytest.mark.parametrize("form", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_grammar_is_refused_or_ready_in_time(keeper: ProcessKeeper, form: dict[str, Any]) -> None:
    start = time.monotonic()
    error = None
    try:
        compile_with(keeper, constraint(f"sends {sorted(form.items())!r}"[:99], **form))
    except QuireError as problem:
        error = problem
    assert time.monotonic() - start < 4 * LIMIT_S  # the bound is LIMIT_S; a test's machine may be busy
    assert error is None or isinstance(error, RequestError)
    compile_with(keeper, constraint(regex="still [a-z]+"))


def test_what_takes_too_long_says_so(keeper: ProcessKeeper) -> None:
    with pytest.raises(RequestError, match=r"takes more than|not compiled within"):
        compile_with(keeper, constraint("slow", **HOSTILE["patterns that meet"]))


def test_what_was_refused_is_not_tried_again(keeper: ProcessKeeper) -> None:
    """Not even an owner whose purse is empty is told to come back: the answer is known."""
    again = {**HOSTILE["patterns that meet"]["json"], "title": "again"}
    for number in range(8):  # on a busy machine the first ones may only have waited too long
        with pytest.raises(RequestError) as refused:
            compile_with(keeper, constraint(f"tries {number}", json=again))
        if "takes more than" in str(refused.value):
            break
    for _ in range(2 + int(OWNER_COMPILE_S / COMPILE_CPU_S)):
        with pytest.raises(RequestError, match="takes more than"):
            compile_with(keeper, constraint("stubborn", json=again))


def test_the_vocabulary_can_be_read_before_anybody_asks() -> None:
    keeper = ProcessKeeper(BUNDLED, SPEC.vocab_size, SPEC.eos_ids, NUM_ROWS)
    keeper.warm()
    begun = keeper._child
    assert begun is not None
    keeper.warm()
    compile_with(keeper, constraint(regex="[a-z]"))
    assert keeper._child is begun
    keeper.close()


def test_a_crowd_of_hostile_grammars_does_not_shut_others_out(keeper: ProcessKeeper) -> None:
    """Owners take turns, so a second owner waits for one trial, not for all of the first one's."""
    told: queue.SimpleQueue[tuple[str, QuireError | None]] = queue.SimpleQueue()
    for number in range(12):
        hostile = {**HOSTILE["patterns that meet"]["json"], "title": str(number)}
        keeper.prepare(constraint("crowd", json=hostile), lambda error: told.put(("crowd", error)))
    keeper.prepare(constraint("guest", regex="[0-9]{4}"), lambda error: told.put(("guest", error)))
    answers = [told.get(timeout=30) for _ in range(13)]
    names = [name for name, _ in answers]
    assert names.index("guest") <= 2
    assert dict(answers)["guest"] is None
    assert any(isinstance(error, Overloaded) for name, error in answers if name == "crowd")


@pytest.fixture
def mortal() -> Iterator[ProcessKeeper]:
    keeper = ProcessKeeper(BUNDLED, SPEC.vocab_size, SPEC.eos_ids, NUM_ROWS)
    yield keeper
    keeper.close()


def hurt(keeper: ProcessKeeper, number: signal.Signals = signal.SIGKILL) -> None:
    child = keeper._child
    assert child is not None
    os.kill(child._process.pid, number)
    if number == signal.SIGKILL:
        child._process.wait()


def test_a_process_that_dies_loses_its_answers_and_comes_back(mortal: ProcessKeeper) -> None:
    keeper = mortal
    form = constraint(choice=["one", "two"])
    compile_with(keeper, form)
    hurt(keeper)
    keeper.begin(MaskOrder(((1, "", form.grammar),), ((1, 2, (), False),)))
    assert keeper.wait().failures == ((2, FORM_LOST),)
    compile_with(keeper, form)
    found, failures = masks(keeper, MaskOrder(((2, "", form.grammar),), ((2, 0, (), False),)))
    assert failures == ()
    assert tokens_of(found[0])


def test_the_next_process_is_never_asked_for_answers_that_it_does_not_know(mortal: ProcessKeeper) -> None:
    """Nor does a step wait until it has read its vocabulary."""
    form = constraint(choice=["one", "two"])
    compile_with(mortal, form)
    masks(mortal, MaskOrder(((1, "", form.grammar),), ((1, 0, (), False),)))
    first = mortal._child
    hurt(mortal)
    while (later := mortal._child) is first:  # until its end was heard of
        mortal.warm()
    assert later is not None
    assert masks(mortal, MaskOrder((), ((1, 0, (), False),)))[1] == ((0, FORM_LOST),)
    assert masks(mortal, MaskOrder(((2, "", form.grammar),), ((2, 1, (), False),), (1,)))[1] == ((1, FORM_LOST),)
    assert masks(mortal, MaskOrder((), (), (2,)))[1] == ()
    assert not later.has_spoken
    compile_with(mortal, form)
    assert masks(mortal, MaskOrder(((3, "", form.grammar),), ((3, 1, (), False),)))[1] == ()
    assert mortal._child is later


def test_what_was_compiled_before_needs_no_trial_and_no_purse(mortal: ProcessKeeper) -> None:
    """As many as one key has under way when its grammars are lost: all at once."""
    told: queue.SimpleQueue[QuireError | None] = queue.SimpleQueue()
    schemas = [
        {"type": "object", "properties": {f"p{n}_{m}": {"type": "string"} for m in range(30)}} for n in range(80)
    ]
    for schema in schemas:
        mortal.prepare(constraint("one", json=schema), told.put, is_known=True)
    assert [told.get(timeout=30) for _ in schemas] == [None] * len(schemas)
    mortal.prepare(Constraint("start: nothing", "one"), told.put, is_known=True)
    assert isinstance(told.get(timeout=30), RequestError)


def test_a_stopped_process_is_replaced_and_asked_again(mortal: ProcessKeeper) -> None:
    """Both for grammars that it was compiling and for masks; descriptors do not pile up."""
    form = constraint(choice=["one", "two"])
    compile_with(mortal, form)
    num_before = len(os.listdir("/proc/self/fd"))
    hurt(mortal, signal.SIGSTOP)
    compile_with(mortal, constraint(choice=["three"]))
    compile_with(mortal, form)
    masks(mortal, MaskOrder(((1, "", form.grammar),), ((1, 0, (), False),)))
    hurt(mortal, signal.SIGSTOP)
    begin = time.monotonic()
    assert masks(mortal, MaskOrder((), ((1, 0, (), False),)))[1] == ((0, FORM_LOST),)
    assert time.monotonic() - begin < MASK_WAIT_S
    compile_with(mortal, form)
    assert len(os.listdir("/proc/self/fd")) <= num_before


def test_an_answer_that_does_not_fit_fails_alone(keeper: ProcessKeeper) -> None:
    form = constraint(regex="[0-9]+")
    compile_with(keeper, form)
    opens = ((201, "", form.grammar), (202, "", form.grammar))
    masks(keeper, MaskOrder(opens, ((201, 0, (), False), (202, 1, (), False))))
    found, _ = masks(keeper, MaskOrder((), ((202, 1, (), False),)))
    digit = tokens_of(found[0])[0]
    letter = next(token for token in range(SPEC.vocab_size) if token not in tokens_of(found[0]))
    found, failures = masks(keeper, MaskOrder((), ((201, 0, (letter,), False), (202, 1, (digit,), False))))
    assert [row for row, _ in failures] == [0]
    assert tokens_of(found[0]) == []
    assert tokens_of(found[1])


def test_a_purse_is_spent_and_filled_up() -> None:
    credit = Credit()
    assert credit.left_s("a", 5.0) == OWNER_COMPILE_S
    credit.spend("a", 2 * OWNER_COMPILE_S, 5.0)
    assert credit.left_s("a", 5.0) == -OWNER_COMPILE_S
    assert credit.left_s("b", 5.0) == OWNER_COMPILE_S
    assert credit.left_s("a", 5.0 + OWNER_COMPILE_S / REFILL) == pytest.approx(0.0)
    assert credit.left_s("a", 5.0 + 10 * OWNER_COMPILE_S / REFILL) == OWNER_COMPILE_S
