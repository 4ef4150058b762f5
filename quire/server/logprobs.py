"""Log probabilities in OpenAI's two shapes, with tokens spelled so that two different ones never look the same.

Knows: token ids, their bytes. Does not know: how the numbers came about, chunks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from quire.server.generation import ToldToken
from quire.server.shapes import ChatLogprob, ChatLogprobs, TextLogprobs, TopLogprob
from quire.text.tokenizer import Tokenizer

LOWEST = -9999.0  # what OpenAI writes for "very unlikely"; JSON has no infinity


@dataclass(frozen=True, slots=True)
class TokenNames:
    """How tokens are spelled: as text, or as `token_id:17` where that was asked for."""

    tokenizer: Tokenizer
    as_ids: bool = False

    def chat(self, token: int) -> tuple[str, list[int]]:
        """Text (half characters as U+FFFD) and bytes."""
        data = self.tokenizer.token_bytes(token)
        return self._name(token, data.decode("utf-8", "replace")), list(data)

    def text(self, token: int) -> str:
        """Text, or `bytes:\\xf0\\x9f` for a token that is no whole text: completions have no field for bytes."""
        data = self.tokenizer.token_bytes(token)
        try:
            return self._name(token, data.decode("utf-8"))
        except UnicodeDecodeError:
            return self._name(token, "bytes:" + "".join(f"\\x{byte:02x}" for byte in data))

    def _name(self, token: int, text: str) -> str:
        return f"token_id:{token}" if self.as_ids else text


def chat_logprobs(names: TokenNames, tokens: Sequence[ToldToken], num_top: int) -> ChatLogprobs:
    """`choices[].logprobs` of chat."""
    return ChatLogprobs([_chat_entry(names, token, num_top) for token in tokens])


def text_logprobs(names: TokenNames, tokens: Sequence[ToldToken], num_top: int) -> TextLogprobs:
    """`choices[].logprobs` of completions; `top_logprobs` holds the chosen token too, so up to num_top + 1."""
    return TextLogprobs(
        [names.text(token.id) for token in tokens],
        [None if token.logprob is None else finite(token.logprob.logprob) for token in tokens],
        [_text_top(names, token, num_top) for token in tokens],
        [token.offset for token in tokens],
    )


def finite(logprob: float) -> float:
    """A number that JSON can write."""
    return logprob if math.isfinite(logprob) else LOWEST


def _chat_entry(names: TokenNames, token: ToldToken, num_top: int) -> ChatLogprob:
    text, data = names.chat(token.id)
    logprob = LOWEST if token.logprob is None else finite(token.logprob.logprob)
    best = () if token.logprob is None else token.logprob.top[:num_top]
    return ChatLogprob(text, logprob, data, [_top(names, each, value) for each, value in best])


def _top(names: TokenNames, token: int, logprob: float) -> TopLogprob:
    text, data = names.chat(token)
    return TopLogprob(text, finite(logprob), data)


def _text_top(names: TokenNames, token: ToldToken, num_top: int) -> dict[str, float] | None:
    if token.logprob is None:
        return None
    pairs = {names.text(each): finite(value) for each, value in token.logprob.top[:num_top]}
    pairs.setdefault(names.text(token.id), finite(token.logprob.logprob))
    return pairs
