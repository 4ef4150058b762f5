"""Facts in a sentence, a JSON object with the keys that the user names.

Knows the kinds of records and how people describe them; knows no schemas and no tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from training import words
from training.conversation import Conversation, HeldOut, exchange


@dataclass(frozen=True, slots=True)
class Field:
    """One key: how to draw its value, and the clauses that state it. `{}` is the value in words."""

    key: str
    draw: Callable[[Random], Any]
    clauses: tuple[str, ...]
    held_out_clauses: tuple[str, ...]
    spoken: Callable[[Any], str] = str


@dataclass(frozen=True, slots=True)
class Record:
    """A kind of thing: the key of its subject, how the subject is drawn, and its other fields."""

    subject_key: str
    draw_subject: Callable[[Random], str]
    fields: tuple[Field, ...]


def _one_of(values: tuple[str, ...]) -> Callable[[Random], str]:
    return lambda rng: rng.choice(values)


def _between(low: int, high: int) -> Callable[[Random], int]:
    return lambda rng: rng.randint(low, high)


def _price(rng: Random) -> float | int:
    return rng.randint(1, 99) if rng.random() < 0.5 else rng.randint(1, 99) + rng.choice((0.5, 0.25, 0.75, 0.2, 0.9))


def _pair(values: tuple[str, ...]) -> Callable[[Random], list[str]]:
    return lambda rng: rng.sample(values, 2)


def _flag(rng: Random) -> bool:
    return rng.random() < 0.5


def _date(rng: Random) -> str:
    return f"{rng.randint(1, 28)} {rng.choice(words.MONTHS)}"


def _title(rng: Random) -> str:
    return f"The {rng.choice(words.COLORS).capitalize()} {rng.choice(words.GOODS).capitalize()}"


def _mail(rng: Random) -> str:
    return f"{words.person(rng).lower()}@{words.made_up(rng).lower()}.com"


_PERSON = Record(
    "name",
    words.person,
    (
        Field(
            "age",
            _between(3, 98),
            ("is {} years old", "is aged {}", "is {}"),
            ("turned {} this year", "has an age of {}"),
        ),
        Field(
            "city", words.city, ("lives in {}", "comes from {}", "is from {}"), ("has a home in {}", "has moved to {}")
        ),
        Field(
            "job",
            _one_of(words.JOBS),
            ("works as a {}", "is a {}", "has a job as a {}"),
            ("earns a living as a {}", "is employed as a {}"),
        ),
        Field("hobbies", _pair(words.HOBBIES), ("likes {}", "loves {}", "enjoys {}"), ("is fond of {}",), words.listed),
        Field(
            "email", _mail, ("has the email {}", "can be reached at {}", "uses the address {}"), ("reads mail at {}",)
        ),
        Field("married", _flag, ("is {}",), ("has been {} for years",), lambda yes: "married" if yes else "single"),
    ),
)
_PRODUCT = Record(
    "product",
    lambda rng: "The " + rng.choice(words.GOODS),
    (
        Field(
            "price",
            _price,
            ("costs {} euros", "has a price of {}", "is sold for {} dollars"),
            ("goes for {} euros", "can be bought for {} dollars"),
        ),
        Field("color", _one_of(words.COLORS), ("is {}", "comes in {}", "has the color {}"), ("is painted {}",)),
        Field("stock", words.number, ("has {} pieces in stock", "is there {} times"), ("has a stock of {} items",)),
        Field("weight", words.number, ("weighs {} grams", "has a weight of {} grams"), ("comes to {} grams",)),
        Field("available", _flag, ("is {}",), ("is now {}",), lambda yes: "available" if yes else "sold out"),
    ),
)
_BOOK = Record(
    "title",
    _title,
    (
        Field("author", words.person, ("was written by {}", "is a book by {}"), ("has {} as its author",)),
        Field("year", _between(1850, 2026), ("appeared in {}", "was published in {}"), ("came out in {}",)),
        Field("pages", words.number, ("has {} pages", "is {} pages long"), ("counts {} pages",)),
        Field("language", _one_of(words.LANGUAGES), ("is written in {}", "is in {}"), ("can be read in {}",)),
    ),
)
_TRIP = Record(
    "passenger",
    words.person,
    (
        Field("from", words.city, ("leaves from {}", "starts in {}"), ("departs from {}",)),
        Field("to", words.city, ("travels to {}", "goes to {}"), ("wants to get to {}",)),
        Field("day", _one_of(words.DAYS), ("travels on {}", "goes on {}"), ("rides on {}",)),
        Field("seats", _between(1, 9), ("needs {} seats", "books {} seats"), ("asks for {} seats",)),
    ),
)
_EVENT = Record(
    "event",
    lambda rng: words.made_up(rng) + rng.choice((" Festival", " Meeting", " Party", " Concert")),
    (
        Field("date", _date, ("takes place on {}", "is on {}"), ("happens on {}",)),
        Field("place", words.city, ("is held in {}", "takes place in {}"), ("can be visited in {}",)),
        Field("guests", words.number, ("has {} guests", "expects {} people"), ("welcomes {} visitors",)),
        Field("host", words.person, ("is hosted by {}", "is organised by {}"), ("has {} as its host",)),
    ),
)
RECORDS = (_PERSON, _PERSON, _PRODUCT, _BOOK, _TRIP, _EVENT)

_TRAIN_FRAMES = (
    "{facts} Write this as JSON with the keys {keys}.",
    "{facts} Return a JSON object with the keys {keys}.",
    "{facts} Give me JSON with {keys}.",
    "Make a JSON object with the keys {keys} from this text: {facts}",
    "Extract {keys} as JSON: {facts}",
    "Fill a JSON object with {keys}. {facts}",
    "{facts} JSON with {keys}, please.",
    "Turn this into JSON with the fields {keys}: {facts}",
    "Answer in JSON only. Keys: {keys}. Text: {facts}",
)
_HELD_OUT_FRAMES = (
    "Read this: {facts} Now put {keys} into a JSON object.",
    "{facts} Produce JSON that has the fields {keys}.",
    "I have a text. {facts} Please write {keys} down as JSON.",
)


def _facts(rng: Random, subject: str, chosen: list[tuple[Field, Any]], *, held_out: bool) -> str:
    clauses = []
    for field, value in chosen:
        forms = field.held_out_clauses if held_out else field.clauses
        clauses.append(rng.choice(forms).format(field.spoken(value)))
    if rng.random() < 0.2:  # one sentence each
        return " ".join(f"{subject} {clause}." for clause in clauses)
    return f"{subject} {words.listed(clauses)}."


def _keys(rng: Random, keys: list[str]) -> str:
    shown = [f'"{key}"' for key in keys] if rng.random() < 0.3 else keys
    return ", ".join(shown) if rng.random() < 0.3 else words.listed(shown)


def _question(rng: Random, *, held_out: bool) -> tuple[str, dict[str, Any]]:
    record = rng.choice(RECORDS)
    fields = rng.sample(record.fields, rng.randint(1, min(3, len(record.fields))))
    chosen = [(field, field.draw(rng)) for field in fields]
    subject = record.draw_subject(rng)
    values = {record.subject_key: subject.removeprefix("The ") if record is _PRODUCT else subject}
    values |= {field.key: value for field, value in chosen}
    keys = list(values)
    if rng.random() < 0.4:
        rng.shuffle(keys)
    if len(keys) > 2 and rng.random() < 0.25:
        keys.pop()  # a fact that nobody asked for
    frame = rng.choice(_HELD_OUT_FRAMES if held_out else _TRAIN_FRAMES)
    text = frame.format(facts=_facts(rng, subject, chosen, held_out=held_out), keys=_keys(rng, keys))
    return text, {key: values[key] for key in keys}


def train(rng: Random) -> Conversation:
    question, expected = _question(rng, held_out=False)
    return exchange(question, json.dumps(expected, ensure_ascii=False))


def held_out(rng: Random) -> HeldOut:
    """A wording of question and facts never trained on; the answer must be JSON alone and equal."""
    question, expected = _question(rng, held_out=True)
    right = json.dumps(expected, ensure_ascii=False)

    def check(answer: str) -> bool:
        try:
            return bool(json.loads(answer) == expected)
        except json.JSONDecodeError:
            return False

    return HeldOut(exchange(question, right).messages[:1], right, check)
