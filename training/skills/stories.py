"""Short stories, 60 to 200 words, put together from an opening, a trouble, a turn and an end.

Knows how a story is built and asked for; the sentences are in `story_parts.py`.
"""

# ruff: noqa: SIM905 - word lists read better as text
from __future__ import annotations

from random import Random

from training import words
from training.conversation import Conversation, HeldOut, exchange, user
from training.skills import story_parts as parts

_ASKS = (
    "Write a short story about {}.",
    "write a short story about {}",
    "Tell me a story about {}.",
    "Tell me a short story about {}.",
    "Please write a story about {}.",
    "Can you tell me a story about {}?",
    "A story about {}, please.",
    "I want a story about {}.",
    "Make up a story about {}.",
    "Story about {}",
    "Write a story about {}.",
)
_HELD_OUT_ASKS = (
    "Could you invent a short story about {}?",
    "I would love to hear a story about {}.",
    "Give me a little tale about {}.",
)
_OPEN_ASKS = ("Tell me a story.", "Write a short story.", "Tell me a bedtime story.", "Write a story")
HELD_OUT_PAIR = 7  # one pair of adjective and hero in seven is never a hero in training


def _article(phrase: str) -> str:
    return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"


def _is_held_out(adjective: str, hero: str) -> bool:
    return (parts.ADJECTIVES.index(adjective) + parts.HEROES.index(hero) * 3) % HELD_OUT_PAIR == 0


def _hero(rng: Random, *, held_out: bool) -> tuple[str, str]:
    while True:
        adjective, hero = rng.choice(parts.ADJECTIVES), rng.choice(parts.HEROES)
        if _is_held_out(adjective, hero) == held_out:
            return adjective, hero


def tell(rng: Random, adjective: str, hero: str, place: str | None = None) -> str:
    """A story whose hero is this one; the words for the hero stay the same throughout."""
    name, friend_name = rng.sample(parts.MALE_NAMES + parts.FEMALE_NAMES, 2)
    they = parts.PRONOUNS[name in parts.FEMALE_NAMES]
    color = rng.choice(words.COLORS)
    friend = rng.choice([other for other in parts.HEROES if other != hero])
    slots = {
        "N": name,
        "h": hero,
        "ah": _article(f"{adjective} {hero}"),
        "p": place or rng.choice(parts.PLACES),
        "F": friend_name,
        "af": _article(friend),
        "f": friend,
        "o": rng.choice(words.GOODS),
        "c": color,
        "ac": _article(color),
        "d": rng.choice(words.DAYS),
        **they,
    }
    plot = rng.choice(parts.PLOTS)
    paragraphs = [rng.choice(parts.OPENINGS), rng.choice(parts.HABITS)]
    paragraphs += [rng.choice(sentences) for sentences in plot]
    if rng.random() < 0.5:
        paragraphs.append(rng.choice(parts.CELEBRATIONS))
    paragraphs.append(rng.choice(parts.ENDINGS))
    return " ".join(paragraph.format(**slots) for paragraph in paragraphs)


def train(rng: Random) -> Conversation:
    adjective, hero = _hero(rng, held_out=False)
    kind = rng.random()
    if kind < 0.1:
        return exchange(rng.choice(_OPEN_ASKS), tell(rng, adjective, hero))
    if kind < 0.25:
        place = rng.choice(parts.PLACES)
        return exchange(rng.choice(_ASKS).format(f"{_article(hero)} in {place}"), tell(rng, adjective, hero, place))
    topic = rng.choice((hero, f"{adjective} {hero}"))
    return exchange(rng.choice(_ASKS).format(_article(topic)), tell(rng, adjective, hero))


def raw(rng: Random) -> str:
    """A story without a chat around it."""
    return tell(rng, *_hero(rng, held_out=False))


def held_out(rng: Random) -> HeldOut:
    """A hero never described so, asked for in new words: the story must be about it and come to its end."""
    adjective, hero = _hero(rng, held_out=True)
    right = tell(rng, adjective, hero)

    def check(answer: str) -> bool:
        count = len(answer.split())
        return 60 <= count <= 200 and f"{adjective} {hero}" in answer and answer.rstrip().endswith((".", "!"))

    question = rng.choice(_HELD_OUT_ASKS).format(_article(f"{adjective} {hero}"))
    return HeldOut((user(question),), right, check)
