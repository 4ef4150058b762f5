"""Words that may not be written, as the token sequences that write them.

Knows: a tokenizer. Does not know: who writes, or how a token is forbidden.
"""

from __future__ import annotations

from collections.abc import Sequence

from quire.errors import RequestError
from quire.text.tokenizer import Tokenizer

_BEFORE = "\n"  # a context that merges with no word: what follows is in the middle of a text
Ids = tuple[int, ...]


def bad_sequences(tokenizer: Tokenizer, words: Sequence[str]) -> tuple[Ids, ...]:
    """For each word the ids that write it as it is given, with a space before it, and right after other text.

    A sequence that ends with another one is left out: it cannot be completed anyway. Other ids that happen to write the
    same text are not looked for. Raises `RequestError` for a word without tokens.
    """
    found: dict[Ids, None] = {}
    for word in words:
        ways = [each for each in _ways(tokenizer, word) if each]
        if not ways:
            raise RequestError("a bad word has no tokens", got=word, param="bad_words")
        found.update(dict.fromkeys(ways))
    return tuple(each for each in found if not any(each[start:] in found for start in range(1, len(each))))


def _ways(tokenizer: Tokenizer, word: str) -> list[Ids]:
    bare = word.lstrip(" ") or word
    ways = [_encode(tokenizer, text) for text in (word, bare, " " + bare)]
    before, after = _encode(tokenizer, _BEFORE), _encode(tokenizer, _BEFORE + bare)
    if after[: len(before)] == before:
        ways.append(after[len(before) :])
    return ways


def _encode(tokenizer: Tokenizer, text: str) -> Ids:
    return tuple(tokenizer.encode(text, add_special_tokens=False, param="bad_words"))
