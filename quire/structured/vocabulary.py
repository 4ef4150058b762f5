"""What every id of the model stands for in bytes, as llguidance takes it.

Knows: a tokenizer, and how many ids the model has. Does not know: grammars.
"""

from __future__ import annotations

from collections.abc import Sequence

import llguidance

from quire.text.tokenizer import Tokenizer


class Vocabulary:
    """One model's tokens. Ids without bytes are in no mask; special tokens are reached by their names alone.

    Building it takes about 2 s for 150,000 tokens and holds the interpreter's lock: in a process of its own where
    others wait.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, eos_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self.vocab_size = vocab_size
        self.bytes_of = [tokenizer.token_bytes(token) for token in range(vocab_size)]
        self._specials = frozenset(tokenizer.special_ids) | frozenset(eos_ids)
        self._longest: dict[bytes, int] | None = None
        self.ends = tuple(token for token in eos_ids if token < vocab_size)
        self.library = llguidance.LLTokenizer(
            llguidance.TokenizerWrapper(_AsAsked(self)), eos_token=list(self.ends) or None
        )

    @property
    def special_ids(self) -> list[int]:
        """Ids that no text stands for, ascending."""
        return sorted(token for token in self._specials if token < self.vocab_size)

    @property
    def row_bytes(self) -> int:
        """Bytes of one mask: a bit for each id, in whole words of 32."""
        return -(-self.vocab_size // 32) * 4

    def encode(self, text: str) -> list[int]:
        """Tokens whose bytes are those of `text` exactly: the tokenizer's own where they are, else the longest fits.

        A tokenizer that writes a space before every text is asked in the middle of one.
        """
        wanted = text.encode("utf-8", "replace")
        for before in ("", "\n"):
            ids = self._tokenizer.encode(before + text, add_special_tokens=False)
            found = self._ending(ids, wanted)
            if found is not None:
                return found
        return self._greedy(wanted)

    def _ending(self, ids: Sequence[int], wanted: bytes) -> list[int] | None:
        """The last of `ids` that together are `wanted`."""
        size = 0
        for place in range(len(ids), -1, -1):
            if size == len(wanted):
                tail = list(ids[place:])
                plain = not self._specials.intersection(tail)
                return tail if plain and b"".join([self.bytes_of[token] for token in tail]) == wanted else None
            if place == 0 or ids[place - 1] >= self.vocab_size:
                return None
            size += len(self.bytes_of[ids[place - 1]])
        return None

    def _greedy(self, wanted: bytes) -> list[int]:
        if self._longest is None:
            known = [(token, text) for token, text in enumerate(self.bytes_of) if text and token not in self._specials]
            self._longest = {text: token for token, text in reversed(known)}
        longest, found, place = max(map(len, self._longest)), [], 0
        while place < len(wanted):
            for size in range(min(longest, len(wanted) - place), 0, -1):
                token = self._longest.get(wanted[place : place + size])
                if token is not None:
                    found.append(token)
                    place += size
                    break
            else:
                place += 1  # a byte that no token has: nothing can be forced here
        return found


class _AsAsked:
    """The vocabulary under the names that the library reads."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.eos_token_id = vocabulary.ends[0] if vocabulary.ends else 0
        self.bos_token_id = None
        self.tokens = vocabulary.bytes_of
        self.special_token_ids = vocabulary.special_ids

    def __call__(self, text: str | bytes) -> list[int]:
        """The tokens of `text`."""
        return self._vocabulary.encode(text.decode("utf-8", "replace") if isinstance(text, bytes) else text)
