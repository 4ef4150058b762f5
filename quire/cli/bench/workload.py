"""When requests arrive and what they ask: random, shared-prefix, or a recorded trace.

Knows: arrival processes and made-up text of a wanted length. Does not know: servers, or how fast anything is answered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from quire.sim.trace import Arrival

# Short, common words: about one token each in every vocabulary made from English text.
TEXT = (
    "the of and to in is that for it as was with be by on not he his but at are this have from or had an they which"
    " one you were all her she there would their we him been has when who will no more if out so up said what its about"
    " than into them can only other time new some could these two may first then do any like my now over such our man"
    " even most made after also well must before back through years where much your way down should because long each"
    " just state people those too good very make world still see own work here get life both between"
)
WORDS = tuple(TEXT.split())


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to be sent `at_s` seconds after the start, whatever has become of the earlier ones."""

    at_s: float
    prompt: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """How long prompts and answers are, in tokens; `shared_tokens` open every prompt alike."""

    input_tokens: int
    output_tokens: int
    shared_tokens: int = 0


@dataclass(frozen=True, slots=True)
class TextMaker:
    """Made-up prompts of about a wanted number of tokens, by what a word costs on the server under test."""

    tokens_per_word: float = 1.0
    overhead_tokens: float = 0.0

    def words(self, rng: Random, num_tokens: int) -> str:
        """Random words that the server will count as about `num_tokens` tokens, one word at least."""
        count = max(1, round((num_tokens - self.overhead_tokens) / self.tokens_per_word))
        return " ".join(rng.choices(WORDS, k=count))

    def more_words(self, rng: Random, num_tokens: int) -> str:
        """The same for text that follows other text: what every prompt costs was paid there."""
        return " ".join(rng.choices(WORDS, k=max(1, round(num_tokens / self.tokens_per_word))))


def poisson(rng: Random, rate: float) -> Iterator[float]:
    """Arrival times in seconds of independent users, `rate` a second on average, without end."""
    at_s = 0.0
    while True:
        at_s += rng.expovariate(rate)
        yield at_s


def made_up(rng: Random, num_requests: int, rate: float, sizes: Sizes, text: TextMaker) -> list[Ask]:
    """Poisson arrivals of prompts of one size, behind a prefix in common if `sizes.shared_tokens`."""
    shared = text.words(rng, sizes.shared_tokens) + " " if sizes.shared_tokens else ""
    own = text.more_words if shared else text.words
    return [
        Ask(at_s, shared + own(rng, sizes.input_tokens), sizes.output_tokens)
        for at_s, _ in zip(poisson(rng, rate), range(num_requests), strict=False)
    ]


def replayed(rows: Sequence[Arrival], rng: Random, rate: float | None, text: TextMaker) -> list[Ask]:
    """A trace's own arrivals and lengths; `rate` stretches its clock to that many requests a second."""
    span = rows[-1].at_s if rows else 0.0
    stretch = 1.0 if rate is None or not span else len(rows) / rate / span
    return [Ask(row.at_s * stretch, text.words(rng, row.num_prompt), row.num_output) for row in rows]
