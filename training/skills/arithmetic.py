"""Sums, differences up to three digits, and one digit times two: column by column, as on paper.

Knows which pairs and which wordings are held out; knows no tokens.
"""

from __future__ import annotations

import re
from random import Random

from training.conversation import Conversation, HeldOut, assistant, exchange, user
from training.words import FRUITS, person

OPERATIONS = ("+", "-", "*")
HELD_OUT_SHARE = 10  # one pair in ten is never trained on

_TRAIN_FORMS = {
    "+": ("{a} + {b}", "{a} + {b}", "{a}+{b}", "{a} plus {b}", "the sum of {a} and {b}"),
    "-": ("{a} - {b}", "{a} - {b}", "{a}-{b}", "{a} minus {b}", "the difference of {a} and {b}"),
    "*": ("{a} * {b}", "{a} x {b}", "{a}*{b}", "{a} times {b}", "the product of {a} and {b}"),
}
_TRAIN_FRAMES = (
    "What is {}?",
    "What is {}?",
    "what is {}",
    "What's {}?",
    "Calculate {}.",
    "Compute {}.",
    "{}",
    "{} = ?",
    "{} =",
    "How much is {}?",
    "Please compute {}.",
    "Solve {}.",
    "Tell me {}.",
    "Can you calculate {}?",
    "I need {}.",
    "Do you know what {} is?",
)
_HELD_OUT_FRAMES = (
    "Could you work out {} for me?",
    "Give me the result of {}.",
    "Find {}.",
    "How much does {} make?",
    "Please tell me what {} is.",
    "I would like to know {}.",
)
_STORIES = {
    "+": (
        "{n} has {a} {f} and gets {b} more. How many {f} does {n} have now?",
        "There are {a} {f} in one box and {b} in another. How many {f} are there?",
        "{n} picks {a} {f} today and {b} tomorrow. How many is that?",
    ),
    "-": (
        "{n} has {a} {f} and gives away {b}. How many {f} are left?",
        "There were {a} {f} in the box and {n} took {b}. How many remain?",
        "{n} had {a} {f} and ate {b}. How many are left?",
    ),
    "*": (
        "{n} has {a} bags with {b} {f} each. How many {f} are there?",
        "One box holds {b} {f}. How many {f} are in {a} boxes?",
    ),
}


def is_held_out(a: int, b: int, operation: str) -> bool:
    """True for the pairs kept for the test, in either order: a fixed tenth, never two single digits."""
    low, high = min(a, b), max(a, b)
    return high > 9 and (low * 7919 + high * 104723 + OPERATIONS.index(operation) * 31) % 97 % HELD_OUT_SHARE == 0


def _columns(number: int) -> list[int]:
    return [int(digit) for digit in reversed(str(number))]


def _add(a: int, b: int) -> list[str]:
    steps, carry = [], 0
    digits_a, digits_b = _columns(a), _columns(b)
    for place in range(max(len(digits_a), len(digits_b))):
        terms = [digits[place] for digits in (digits_a, digits_b) if place < len(digits)] + [1] * carry
        steps.append(f"{' + '.join(map(str, terms))} = {sum(terms)}")
        carry = sum(terms) // 10
    return steps


def _subtract(a: int, b: int) -> list[str]:
    steps, borrow = [], 0
    digits_b = _columns(b)
    for place, digit in enumerate(_columns(a)):
        terms = ([digits_b[place]] if place < len(digits_b) else []) + [1] * borrow
        borrow = int(digit < sum(terms))
        value = digit + 10 * borrow - sum(terms)
        steps.append(" - ".join(map(str, [digit + 10 * borrow, *terms])) + f" = {value}")
    return steps


def _multiply(a: int, b: int) -> list[str]:
    one_digit, other = min(a, b), max(a, b)
    steps, carry = [], 0
    for digit in _columns(other):
        value = digit * one_digit + carry
        steps.append(f"{digit} * {one_digit}" + (f" + {carry}" if carry else "") + f" = {value}")
        carry = value // 10
    return steps


_RESULT = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}
_STEPS = {"+": _add, "-": _subtract, "*": _multiply}


def solve(a: int, b: int, operation: str) -> str:
    """The model's answer: the columns from right to left with their carries, then the result."""
    final = f"{a} {operation} {b} = {_RESULT[operation](a, b)}"
    if max(a, b) < 10:
        return f"{final}."
    return f"{', '.join(_STEPS[operation](a, b))}, so {final}."


def _operands(rng: Random, operation: str) -> tuple[int, int]:
    if operation == "*":
        pair = [rng.randint(0, 9), rng.randint(0, 99) if rng.random() < 0.85 else rng.randint(0, 9)]
        rng.shuffle(pair)
        return pair[0], pair[1]
    sizes = [rng.choice((1, 2, 2, 3, 3, 3)) for _ in range(2)]
    a, b = (rng.randint(0 if size == 1 else 10 ** (size - 1), 10**size - 1) for size in sizes)
    return (max(a, b), min(a, b)) if operation == "-" else (a, b)


def _draw(rng: Random, *, held_out: bool) -> tuple[int, int, str]:
    operation = rng.choice(("+", "+", "-", "-", "*"))
    while True:
        a, b = _operands(rng, operation)
        if is_held_out(a, b, operation) == held_out:
            return a, b, operation


def _question(rng: Random, a: int, b: int, operation: str) -> str:
    if rng.random() < 0.15 and a and b:
        return rng.choice(_STORIES[operation]).format(a=a, b=b, n=person(rng), f=rng.choice(FRUITS))
    form = rng.choice(_TRAIN_FORMS[operation]).format(a=a, b=b)
    return rng.choice(_TRAIN_FRAMES).format(form)


def train(rng: Random) -> Conversation:
    messages = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        a, b, operation = _draw(rng, held_out=False)
        messages += [user(_question(rng, a, b, operation)), assistant(solve(a, b, operation))]
    return Conversation(tuple(messages))


def held_out(rng: Random) -> HeldOut:
    """A pair never trained on, in a wording never trained on; the last number of the answer counts."""
    a, b, operation = _draw(rng, held_out=True)
    form = rng.choice(_TRAIN_FORMS[operation]).format(a=a, b=b)
    question = exchange(rng.choice(_HELD_OUT_FRAMES).format(form), solve(a, b, operation))
    expected = str(_RESULT[operation](a, b))

    def check(answer: str) -> bool:
        numbers = re.findall(r"\d+", answer)
        return bool(numbers) and numbers[-1] == expected

    return HeldOut(question.messages[:1], solve(a, b, operation), check)
