"""One sample's text as it comes: tokens in, printable text out, ended by its stop strings.

Knows: a detokenizer and the stop strings. Does not know: requests, how ids were drawn, or who reads.
"""

from __future__ import annotations

from collections.abc import Sequence

from quire.text.detokenizer import Detokenizer
from quire.text.stops import StopStrings
from quire.text.tokenizer import Tokenizer


class SampleText:
    """Text of one sample.

    `stopped` is the stop string that ended it, `num_tokens` the tokens that count, `num_characters` the characters
    that its tokens have brought so far, shown or held back. Stop strings count only in text that comes after the
    first `min_tokens` tokens.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[int],
        stops: Sequence[str] = (),
        *,
        include_stop: bool = False,
        skip_special_tokens: bool = True,
        min_tokens: int = 0,
        shown: frozenset[int] = frozenset(),
    ) -> None:
        """`shown`: special tokens that are never skipped."""
        self._detokenizer = Detokenizer(tokenizer, prompt_ids, skip_special_tokens, shown)
        self._stops = StopStrings(stops, include_stop)
        self.stopped: str | None = None
        self.num_tokens = 0
        self.num_characters = 0
        self._min_tokens = min_tokens

    def push(self, tokens: Sequence[int], *, ended: bool = False, hidden: int = 0) -> str:
        """Text that may be shown now. With `ended` nothing is held back any more.

        The last `hidden` tokens (the one that ended the sample) count but are not shown. Tokens after a stop string
        neither count nor show.
        """
        shown = []
        for place, token in enumerate(tokens):
            if self.stopped is not None:
                break
            self.num_tokens += 1
            if place < len(tokens) - hidden:
                shown.append(self._pass_on(self._detokenizer.push([token])))
        if ended and self.stopped is None:
            shown.append(self._pass_on(self._detokenizer.flush()))
        if ended and self.stopped is None:
            shown.append(self._stops.flush())
        return "".join(shown)

    def _pass_on(self, text: str) -> str:
        self.num_characters += len(text)
        if not text or self.num_tokens <= self._min_tokens:
            return text
        emit, self.stopped = self._stops.push(text)
        return emit
