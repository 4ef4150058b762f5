"""The parameters of the tools that training makes up: schema, values, and how a person states them.

Knows one parameter at a time; knows no tools.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from training import words


@dataclass(frozen=True, slots=True)
class Parameter:
    """A named argument; `{}` in a clause is its value as a person says it."""

    name: str
    type: str
    draw: Callable[[Random], Any]
    clauses: tuple[str, ...]
    held_out_clauses: tuple[str, ...]
    allowed: tuple[str, ...] = ()

    @property
    def schema(self) -> dict[str, Any]:
        return {"type": self.type, "enum": list(self.allowed)} if self.allowed else {"type": self.type}

    def say(self, rng: Random, value: Any, *, held_out: bool) -> str:
        if value is False:
            return f"and not {self.name}"
        return rng.choice(self.held_out_clauses if held_out else self.clauses).format(value)


def _choice(name: str, allowed: tuple[str, ...], clauses: tuple[str, ...], held_out: tuple[str, ...]) -> Parameter:
    return Parameter(name, "string", lambda rng: rng.choice(allowed), clauses, held_out, allowed)


def _code(rng: Random) -> str:
    return f"{rng.choice('ABCDEFGHKLMNPRSTXZ')}{words.number(rng)}"


def _clock(rng: Random) -> str:
    return f"{rng.randint(0, 23)}:{rng.choice(('00', '15', '30', '45'))}"


def _date(rng: Random) -> str:
    return f"{rng.randint(1, 28)} {rng.choice(words.MONTHS)}"


def _mail(rng: Random) -> str:
    return f"{words.person(rng).lower()}@{words.made_up(rng).lower()}.com"


def _title(rng: Random) -> str:
    return (
        f"{rng.choice(words.COLORS).capitalize()} {rng.choice(words.GOODS)}"
        if rng.random() < 0.5
        else words.made_up(rng)
    )


PARAMETERS = (
    Parameter("city", "string", words.city, ("in {}", "in the city {}", "near {}"), ("in the city of {}",)),
    Parameter("location", "string", words.city, ("in {}", "at the location {}"), ("with {} as the location",)),
    Parameter(
        "name", "string", words.person, ("for {}", "with the name {}", "under the name {}"), ("in the name of {}",)
    ),
    Parameter("person", "string", words.person, ("with {}", "for the person {}"), ("together with {}",)),
    Parameter("title", "string", _title, ("called {}", "with the title {}"), ("that is called {}",)),
    Parameter("date", "string", _date, ("on {}", "for {}"), ("on the date {}",)),
    Parameter("day", "string", lambda rng: rng.choice(words.DAYS), ("on {}", "for {}"), ("this {}",)),
    Parameter("time", "string", _clock, ("at {}", "at the time {}"), ("when it is {}",)),
    Parameter("id", "string", _code, ("with the id {}", "with id {}", "number {}"), ("whose id is {}",)),
    Parameter("email", "string", _mail, ("to {}", "with the email {}"), ("for the address {}",)),
    Parameter("amount", "integer", words.number, ("with an amount of {}", "with amount {}"), ("for the amount {}",)),
    Parameter(
        "limit",
        "integer",
        lambda rng: rng.randint(1, 50),
        ("with a limit of {}", "and show at most {}"),
        ("and keep it to {}",),
    ),
    Parameter(
        "minutes",
        "integer",
        lambda rng: rng.randint(1, 90),
        ("for {} minutes", "lasting {} minutes"),
        ("that takes {} minutes",),
    ),
    Parameter(
        "topic", "string", lambda rng: rng.choice(words.TOPICS), ("about {}", "on the topic {}"), ("concerning {}",)
    ),
    Parameter("color", "string", lambda rng: rng.choice(words.COLORS), ("in {}", "with the color {}"), ("that is {}",)),
    _choice("priority", ("low", "medium", "high"), ("with {} priority", "with priority {}"), ("at {} priority",)),
    _choice("format", ("pdf", "csv", "html", "text"), ("as {}", "in the format {}"), ("in {} form",)),
    _choice("size", ("small", "medium", "large"), ("in size {}", "of {} size"), ("that is {}",)),
    _choice("language", words.LANGUAGES[:4], ("in {}", "in the language {}"), ("written in {}",)),
    Parameter(
        "urgent",
        "boolean",
        lambda rng: rng.random() < 0.6,
        ("and mark it as urgent", "and make it urgent"),
        ("which is urgent",),
    ),
)
