"""Which skill is practised how often, and the streams of conversations that training reads.

Knows skills and their shares; knows no tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from types import ModuleType

from training.chat import END_OF_TEXT, render_conversation
from training.conversation import Conversation, Message, Tool, system
from training.skills import about_quire, arithmetic, dialogue, json_filling, stories, tool_calls
from training.words import person

# Shares of conversations, not of tokens: tools cost about 230 tokens, a JSON object 60.
SHARES: dict[ModuleType, float] = {
    arithmetic: 0.23,
    json_filling: 0.33,
    tool_calls: 0.24,
    about_quire: 0.11,
    dialogue: 0.20,
    stories: 0.04,
}
SKILLS: dict[str, ModuleType] = {skill.__name__.rpartition(".")[2]: skill for skill in SHARES}
RAW_STORY_SHARE = 0.02
JOINED_SHARE = 0.15  # conversations that go on with another skill


def _one(rng: Random) -> Conversation:
    skill: ModuleType = rng.choices(list(SHARES), list(SHARES.values()))[0]
    conversation: Conversation = skill.train(rng)
    return conversation


def _join(rng: Random, parts: list[Conversation]) -> Conversation:
    """One conversation out of several; the tools of all of them stand in its system turn."""
    messages: list[Message] = []
    tools: dict[str, Tool] = {}
    for part in parts:
        messages += [message for message in part.messages if message["role"] != "system"]
        tools |= {tool["function"]["name"]: tool for tool in part.tools}
    if rng.random() < 0.3:
        messages.insert(0, system(rng.choice(dialogue.SYSTEMS)))
    return Conversation(tuple(messages), tuple(tools.values()))


def text(rng: Random) -> str:
    """One training text, rendered: a conversation, or a story without a chat."""
    if rng.random() < RAW_STORY_SHARE:
        return stories.raw(rng) + END_OF_TEXT
    if rng.random() < JOINED_SHARE:
        return render_conversation(_join(rng, [_one(rng) for _ in range(rng.choice((2, 2, 3)))]))
    return render_conversation(_one(rng))


def long_text(rng: Random) -> str:
    """A conversation of many turns, a few thousand tokens, that asks for something said at its beginning."""
    filler = (stories, stories, about_quire, dialogue, arithmetic, json_filling)
    middle = [rng.choice(filler).train(rng) for _ in range(rng.randint(9, 19))]
    name = person(rng)
    told, asked = dialogue.name_told(name, rng), dialogue.name_asked(name, rng)
    return render_conversation(_join(rng, [told, *middle, asked, *(_one(rng) for _ in range(3))]))


def texts(seed: int) -> Iterator[str]:
    rng = Random(seed)
    while True:
        yield text(rng)


def long_texts(seed: int) -> Iterator[str]:
    rng = Random(seed)
    while True:
        yield long_text(rng)
