"""Ids of one stream to text that can be sent: never half a character, never anything taken back.

Knows: one stream's ids so far, through a decoder chain. Does not know: stop strings, requests, how text is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from quire.text.decoders import MAX_UNFINISHED_BYTES
from quire.text.tokenizer import Tokenizer

# Every piece has at least one byte, so these hold a character that the prompt leaves unfinished.
NUM_TAIL_PIECES = MAX_UNFINISHED_BYTES


@dataclass(frozen=True, slots=True)
class TokenText:
    """What became certain with one token. offset: characters of this stream's text before the token's own text."""

    token_id: int
    offset: int
    text: str


class Detokenizer:
    """Turns ids into text as they come, in constant time per token.

    Law: all pushes plus `flush()` are what `tokenizer.decode(prompt_ids + ids)` says after the prompt's part, in any
    chunking. Context matters: a SentencePiece answer keeps its leading space after a prompt and loses it without one.
    A character that the prompt's last bytes begin belongs to the answer. A run of byte tokens (`<0xE2>...`) comes out
    when it ends, or at once when it cannot be UTF-8, because the library judges a run as a whole; runs that cross from
    prompt to answer are judged from the prompt's unfinished character on.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[int] = (),
        skip_special_tokens: bool = True,
        shown: frozenset[int] = frozenset(),
    ) -> None:
        """`shown`: special tokens that are never skipped."""
        self._tokenizer = tokenizer
        self._skip = tokenizer.special_ids - shown if skip_special_tokens else frozenset()
        self._chain = tokenizer.new_chain()
        self._num_chars = 0
        self._any_piece = False
        self._read_prompt(prompt_ids)

    def push(self, ids: Iterable[int]) -> str:
        """The text that became certain with `ids`; "" while a character is unfinished."""
        return "".join(token.text for token in self.push_each(ids))

    def push_each(self, ids: Iterable[int]) -> list[TokenText]:
        """The same token by token, with the character offset of each (`text_offset` of completions' logprobs).

        Tokens that share a character, or a run of byte tokens, share its offset.
        """
        tokens = []
        for token_id in ids:
            piece = self._piece(token_id)
            text = self._chain.feed(piece) if piece is not None else ""
            tokens.append(TokenText(token_id, self._num_chars, text))
            self._num_chars += len(text)
            self._any_piece = self._any_piece or piece is not None
        return tokens

    def flush(self) -> str:
        """What was kept back, as it reads when no id follows; unfinished characters become U+FFFD."""
        text = self._chain.flush() if self._any_piece else ""
        self._num_chars += len(text)
        return text

    def _piece(self, token_id: int) -> str | None:
        return None if token_id in self._skip else self._tokenizer.piece(token_id)

    def _read_prompt(self, prompt_ids: Sequence[int]) -> None:
        """Brings the chain to where the prompt leaves it, reading only the prompt's first and last visible pieces.

        Steps that treat the start of a text differently are past it after the first visible pieces; after that only
        an unfinished character matters, and UTF-8 shows where one begins without looking further back.
        """
        for token_id in prompt_ids:
            piece = self._piece(token_id)
            if piece is not None and self._chain.feed(piece):
                for last in self._last_pieces(prompt_ids):
                    self._chain.feed(last)
                break
        self._chain.settle()

    def _last_pieces(self, prompt_ids: Sequence[int]) -> list[str]:
        pieces: list[str] = []
        for token_id in reversed(prompt_ids):
            piece = self._piece(token_id)
            if piece:
                pieces.append(piece)
            if len(pieces) == NUM_TAIL_PIECES:
                break
        return pieces[::-1]
