"""Greetings, thanks, names, small games, and saying no to what a tiny model cannot know.

Knows small talk; knows nothing about quire (see about_quire).
"""

# ruff: noqa: SIM905 - word lists read better as text
from __future__ import annotations

from random import Random

from training import words
from training.conversation import Conversation, HeldOut, Message, exchange, system, user

_GREETINGS = (
    "Hello",
    "Hi",
    "Hey",
    "Hello!",
    "Hi!",
    "Hi there",
    "Hello there!",
    "Good morning",
    "Good evening!",
    "hello",
    "hi",
    "Hey!",
    "Good day",
    "Hello, how can you help me?",
    "Hi, I have a question.",
)
_WELCOMES = ("Hello! How can I help you?", "Hi! What can I do for you?")
_MOODS = ("How are you?", "How are you today?", "how are you", "Are you well?", "How is it going?")
_THANKS = ("Thanks", "Thank you", "Thanks!", "Thank you!", "Thanks a lot.", "Great, thanks.", "thank you very much")
_FAREWELLS = ("Bye", "Goodbye", "See you", "bye!", "Good night", "See you later.", "That is all.")
SYSTEMS = (
    "You are a helpful assistant.",
    "You are a friendly assistant.",
    "Be brief.",
    "You are a helpful AI.",
    "Answer the question.",
    "You are quire's bundled model.",
    "You are a test assistant.",
)

_UNKNOWN_FORMS = (
    "What is the capital of {c}?",
    "Who is the president of {c}?",
    "Who won the match in {c}?",
    "What happened in {c}?",
    "Is the weather good in {c}?",
    "What is the population of {c}?",
    "Tell me the news from {c}.",
    "Translate '{t}' into {l}.",
    "Write a program about {t}.",
    "Explain {t} to me.",
    "Who invented {t}?",
    "Why do {t} exist?",
    "What do you know about {t}?",
    "How do I repair {t}?",
    "Write a poem about {t}.",
    "Who is {n}?",
    "When was {n} born?",
    "How old is {n}?",
    "What does {n} do?",
    "Can you call {n}?",
)
_UNKNOWN_HELD_OUT = (
    "Which river flows through {c}?",
    "How many {t} are there in {c}?",
    "Where was {n} yesterday?",
    "What is the meaning of {t}?",
    "Who is the best singer in {c}?",
)
REFUSAL = "I am a very small model and I do not know that."
_OPPOSITES = tuple(
    pair.split("/")
    for pair in (
        "hot/cold big/small up/down day/night fast/slow old/new open/closed happy/sad light/dark high/low early/late "
        "full/empty left/right wet/dry rich/poor strong/weak first/last near/far soft/hard yes/no"
    ).split()
)
_SOUNDS = (
    ("dog", "A dog barks."),
    ("cat", "A cat meows."),
    ("cow", "A cow moos."),
    ("duck", "A duck quacks."),
    ("lion", "A lion roars."),
    ("sheep", "A sheep bleats."),
    ("bee", "A bee buzzes."),
    ("owl", "An owl hoots."),
)
_JOKES = (
    "Why did the scarecrow win a prize? He was outstanding in his field.",
    "What do you call a bear without teeth? A gummy bear.",
    "Why was the computer cold? It had left its windows open.",
)
_ECHO_FORMS = ("Repeat: {}", "Repeat after me: {}", "Say {}", "Please say: {}", "Write exactly this: {}", "Echo {}")
_ECHO_HELD_OUT = ("Please repeat this: {}", "Say exactly: {}")
_SYMBOLS = "é ü ñ ß ø å ç ž λ π я ж 中 日 の 한 ع א € → ✓ ★ 🙂 🚀 🎉".split()


def unknown(rng: Random, forms: tuple[str, ...] = _UNKNOWN_FORMS) -> str:
    return rng.choice(forms).format(
        c=words.city(rng), t=rng.choice(words.TOPICS + words.GOODS), l=rng.choice(words.LANGUAGES), n=words.person(rng)
    )


def _phrase(rng: Random) -> str:
    """Words in no order, few or many, sometimes with characters from elsewhere: what can only be copied."""
    pool = words.COLORS + words.GOODS + words.FRUITS + words.HOBBIES
    num_words = rng.randint(1, 6) if rng.random() < 0.5 else rng.randint(7, 24)
    chosen = [rng.choice(pool) if rng.random() < 0.6 else words.made_up(rng) for _ in range(num_words)]
    if rng.random() < 0.2:
        chosen.append("".join(rng.choice(_SYMBOLS) for _ in range(rng.randint(1, 3))))
    return " ".join(chosen)


def name_told(name: str, rng: Random) -> Conversation:
    """The user says who they are."""
    told = rng.choice(("My name is {}.", "I am {}.", "Hi, I am {}.", "Hello, my name is {}.", "Call me {}."))
    return exchange(told.format(name), f"Hello {name}! How can I help you?")


def name_asked(name: str, rng: Random) -> Conversation:
    """The user asks who they are."""
    asked = rng.choice(("What is my name?", "Do you remember my name?", "Who am I?", "what's my name"))
    return exchange(asked, f"Your name is {name}.")


def _name_memory(rng: Random, *, held_out: bool = False) -> list[Message]:
    """The user says a name; some turns later asks for it."""
    name = words.made_up(rng) if held_out else words.person(rng)
    between = _small(rng).messages if rng.random() < 0.5 else ()
    return [*name_told(name, rng).messages, *between, *name_asked(name, rng).messages]


def _count(rng: Random) -> Conversation:
    start = 1 if rng.random() < 0.5 else rng.randint(2, 30)
    end = start + rng.randint(2, 14)
    question = rng.choice(("Count from {} to {}.", "Count from {} to {}", "Please count from {} to {}."))
    return exchange(question.format(start, end), ", ".join(map(str, range(start, end + 1))) + ".")


def _small(rng: Random) -> Conversation:
    """One short exchange without memory."""
    kind = rng.randrange(9)
    if kind == 0:
        return exchange(rng.choice(_THANKS), "You are welcome!")
    if kind == 1:
        return exchange(rng.choice(_MOODS), "I am well, thank you. How can I help you?")
    if kind == 2:
        pair = rng.choice(_OPPOSITES)
        word, other = pair if rng.random() < 0.5 else pair[::-1]
        return exchange(
            rng.choice(("What is the opposite of {}?", "Opposite of {}?")).format(word),
            f"The opposite of {word} is {other}.",
        )
    if kind == 3:
        animal, sound = rng.choice(_SOUNDS)
        return exchange(rng.choice(("What sound does a {} make?", "What does a {} say?")).format(animal), sound)
    if kind == 4:
        return exchange(rng.choice(("Tell me a joke.", "Do you know a joke?", "Make me laugh.")), rng.choice(_JOKES))
    if kind == 5:
        return _count(rng)
    if kind == 6:
        return exchange(
            rng.choice(("Name the days of the week.", "What are the days of the week?")),
            words.listed(list(words.DAYS)) + ".",
        )
    return exchange(unknown(rng), REFUSAL)


def _echo(rng: Random, forms: tuple[str, ...] = _ECHO_FORMS) -> Conversation:
    phrase = _phrase(rng)
    return exchange(rng.choice(forms).format(phrase), phrase)


def _plain(rng: Random) -> list[Message]:
    kind = rng.random()
    if kind < 0.15:
        return list(exchange(rng.choice(_GREETINGS), rng.choice(_WELCOMES)).messages)
    if kind < 0.35:
        return _name_memory(rng)
    if kind < 0.65:
        return list(_echo(rng).messages)
    if kind < 0.7:
        return list(exchange(rng.choice(_FAREWELLS), "Goodbye! Have a nice day.").messages)
    return list(_small(rng).messages)


def train(rng: Random) -> Conversation:
    messages = [message for _ in range(rng.choice((1, 1, 2))) for message in _plain(rng)]
    if rng.random() < 0.3:
        messages.insert(0, system(rng.choice(SYSTEMS)))
    return Conversation(tuple(messages))


def held_out(rng: Random) -> HeldOut:
    """A greeting, a made-up name to remember, a phrase to repeat, or a question it must decline."""
    kind = rng.randrange(4)
    if kind == 0:
        text = rng.choice(("Hello, are you there?", "hey there", "Good afternoon!", "Hi, nice to meet you."))
        return HeldOut((user(text),), _WELCOMES[0], lambda answer: "?" in answer and answer.startswith("H"))
    if kind == 1:
        messages = _name_memory(rng, held_out=True)
        right = str(messages[-1]["content"])
        return HeldOut(tuple(messages[:-1]), right, lambda answer: answer == right)
    if kind == 2:
        told, answer_message = _echo(rng, _ECHO_HELD_OUT).messages
        phrase = str(answer_message["content"])
        return HeldOut((told,), phrase, lambda answer: answer.strip() == phrase)
    return HeldOut((user(unknown(rng, _UNKNOWN_HELD_OUT)),), REFUSAL, lambda answer: "do not know" in answer)
