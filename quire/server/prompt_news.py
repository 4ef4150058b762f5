"""What is told of a prompt before the answer: its text where it is echoed, its tokens' log probabilities as they come.

Knows: one request's prompt. Does not know: samples, chunks, HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from quire.request import Request
from quire.step import TokenLogprob
from quire.text.detokenizer import Detokenizer
from quire.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class ToldToken:
    """A token as logprobs list it. `offset`: characters of the choice's text before it; `logprob` None: the first."""

    id: int
    offset: int
    logprob: TokenLogprob | None


@dataclass(frozen=True, slots=True)
class PromptNews:
    """A further part of the prompt; nothing of it is kept here. `logprobs` begin with None, for the first token."""

    text: str = ""
    tokens: tuple[ToldToken, ...] = ()
    logprobs: tuple[TokenLogprob | None, ...] = ()


@dataclass(slots=True)
class PromptTeller:
    """Takes log probabilities as the engine computes them. The text of an `echo` goes out whole, with the first."""

    request: Request
    tokenizer: Tokenizer
    echo: str | None
    _num_told: int = 0
    _begun: bool = False
    _offsets: Detokenizer = field(init=False)

    def __post_init__(self) -> None:
        self._offsets = Detokenizer(self.tokenizer, (), self.request.params.skip_special_tokens)

    @property
    def is_over(self) -> bool:
        """True when everything of the prompt that is told has been; answers wait for it."""
        if self.request.params.prompt_logprobs is None:
            return self.echo is None or self._begun
        return self._num_told == len(self.request.prompt)

    def take(self, logprobs: tuple[TokenLogprob, ...]) -> PromptNews | None:
        """What to tell now that the next prompt tokens have `logprobs`; None where it is nothing."""
        is_first, wanted = not self._begun, self.request.params.prompt_logprobs is not None
        if self.is_over or (wanted and not logprobs and len(self.request.prompt) > 1):
            return None
        self._begun = True
        text = (self.echo or "") if is_first else ""
        if not wanted:
            return PromptNews(text)
        return PromptNews(text, *self._tell((None, *logprobs) if is_first else logprobs))

    def _tell(
        self, logprobs: tuple[TokenLogprob | None, ...]
    ) -> tuple[tuple[ToldToken, ...], tuple[TokenLogprob | None, ...]]:
        first, self._num_told = self._num_told, self._num_told + len(logprobs)
        if self.echo is None or self.request.params.logprobs is None:
            return (), logprobs
        places = self._offsets.push_each(self.request.prompt[first : self._num_told])
        told = [ToldToken(at.token_id, at.offset, value) for at, value in zip(places, logprobs, strict=True)]
        return tuple(told), logprobs
