"""Log probabilities in OpenAI's two shapes and vLLM's for prompts; two different tokens never look the same.

Knows: token ids, their bytes. Does not know: how the numbers came about, chunks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from quire.errors import InternalError
from quire.server.prompt_news import ToldToken
from quire.server.shapes import ChatLogprob, ChatLogprobs, PromptLogprob, TextLogprobs, TopLogprob, encode
from quire.step import TokenLogprob
from quire.text.tokenizer import Tokenizer


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

    def by_text(self, pairs: Iterable[tuple[int, float]]) -> dict[str, float]:
        """Values under their tokens' texts; of two tokens that read the same the later goes by its id."""
        named: dict[str, float] = {}
        for token, value in pairs:
            name = self.text(token)
            named[by_id(token) if name in named else name] = finite(value)
        return named

    def _name(self, token: int, text: str) -> str:
        return by_id(token) if self.as_ids or not text else text


def by_id(token: int) -> str:
    """How a token without a text of its own is called."""
    return f"token_id:{token}"


def chat_logprobs(names: TokenNames, tokens: Sequence[ToldToken], num_top: int) -> ChatLogprobs:
    """`choices[].logprobs` of chat."""
    return ChatLogprobs([_chat_entry(names, token, num_top) for token in tokens])


def text_logprobs(names: TokenNames, tokens: Sequence[ToldToken], num_top: int) -> TextLogprobs:
    """`choices[].logprobs` of completions; `top_logprobs` holds the chosen token too, so up to num_top + 1."""
    return TextLogprobs(
        [names.text(token.id) for token in tokens],
        [None if token.logprob is None else finite(token.logprob.logprob) for token in tokens],
        [msgspec.Raw(encode(_text_top(names, token, num_top))) for token in tokens],
        [token.offset for token in tokens],
    )


def prompt_logprobs(names: TokenNames, told: Sequence[TokenLogprob | None], num_top: int) -> list[msgspec.Raw]:
    """vLLM's `prompt_logprobs`: of each token {id: ...}, the prompt's own first; as JSON, a quarter of the objects."""
    return [msgspec.Raw(encode(None if each is None else _ranked(names, each, num_top))) for each in told]


def finite(logprob: float) -> float:
    """What JSON can write; msgspec would write null for anything else. Raises `InternalError`."""
    if not math.isfinite(logprob):
        raise InternalError("a log probability is not finite", got=logprob)
    return logprob


def _chat_entry(names: TokenNames, token: ToldToken, num_top: int) -> ChatLogprob:
    if token.logprob is None:
        raise InternalError("a token of an answer has no log probability", got=token.id)
    text, data = names.chat(token.id)
    best = token.logprob.top[:num_top]
    return ChatLogprob(text, finite(token.logprob.logprob), data, [_top(names, each, value) for each, value in best])


def _top(names: TokenNames, token: int, logprob: float) -> TopLogprob:
    text, data = names.chat(token)
    return TopLogprob(text, finite(logprob), data)


def _text_top(names: TokenNames, token: ToldToken, num_top: int) -> dict[str, float] | None:
    told = token.logprob
    if told is None:
        return None
    best = told.top[:num_top]
    chosen = () if any(each == token.id for each, _ in best) else ((token.id, told.logprob),)
    return names.by_text((*best, *chosen))


def _ranked(names: TokenNames, told: TokenLogprob, num_top: int) -> dict[int, PromptLogprob]:
    places = {told.token: (told.logprob, told.rank)}
    for rank, (token, logprob) in enumerate(told.top[:num_top], start=1):
        places.setdefault(token, (logprob, rank))
    text = names.tokenizer.token_text
    return {token: PromptLogprob(finite(logprob), rank, text(token)) for token, (logprob, rank) in places.items()}
