"""Questions about quire and their answers, read from `about_quire.txt`.

Knows how questions are worded around; the facts themselves are in the text file.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from training.conversation import Conversation, HeldOut, assistant, exchange, user

FACTS_PATH = Path(__file__).with_suffix(".txt")
_FRAMES = ("{}", "{}", "{}", "{}", "Hi, {}", "Please tell me: {}", "A question: {}", "Hello! {}")


@dataclass(frozen=True, slots=True)
class Fact:
    """An answer, the strings that any right answer holds, and the questions that lead to it."""

    answer: str
    needed: tuple[str, ...]
    questions: tuple[str, ...]
    held_out_questions: tuple[str, ...]


def _parse(block: str) -> Fact:
    lines: dict[str, list[str]] = {"=": [], "!": [], "?": [], "~": []}
    for line in block.splitlines():
        lines[line[0]].append(line[1:].strip())
    (answer,), (needed,) = lines["="], lines["!"]
    return Fact(answer, tuple(needed.split("; ")), tuple(lines["?"]), tuple(lines["~"]))


@cache
def facts() -> tuple[Fact, ...]:
    """The blocks of the file: `=` answer, `!` what it must hold, `?` questions, `~` questions held out."""
    body = FACTS_PATH.read_text(encoding="utf-8").split("\n\n", 1)[1]
    return tuple(_parse(block) for block in body.strip().split("\n\n"))


def _ask(rng: Random, question: str) -> str:
    kind = rng.random()
    if kind < 0.1:
        question = question.lower()
    elif kind < 0.2:
        question = question.rstrip("?.")
    return rng.choice(_FRAMES).format(question)


def train(rng: Random) -> Conversation:
    messages = []
    for fact in rng.sample(facts(), rng.choice((1, 2, 3))):
        messages += [user(_ask(rng, rng.choice(fact.questions))), assistant(fact.answer)]
    return Conversation(tuple(messages))


def held_out(rng: Random) -> HeldOut:
    """A question in words never trained on; the answer must be whole and hold the needed strings."""
    fact = rng.choice([fact for fact in facts() if fact.held_out_questions])
    question = exchange(rng.choice(fact.held_out_questions), fact.answer)

    def check(answer: str) -> bool:
        whole = answer in {fact.answer for fact in facts()}
        return whole and all(needed in answer for needed in fact.needed)

    return HeldOut(question.messages[:1], fact.answer, check)
