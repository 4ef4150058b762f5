"""Deltas of one engine request to pieces of text: the prompt where it is told, then text up to a stop string.

Knows: one request, its tokenizer, how many of its samples go on. Does not know: chunks, HTTP, other prompts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from quire.errors import EngineDead, InternalError
from quire.request import Finish, Request
from quire.server.hearing import Hearing
from quire.server.prompt_news import PromptTeller, ToldToken
from quire.server.speech import Speech
from quire.step import Delta, TokenLogprob, failure
from quire.text.formats.said import Said
from quire.text.sample_text import SampleText
from quire.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Piece:
    """What one choice gained. `tokens` are filled only where logprobs are told; `ids` count, shown or not.

    Where an answer's parts are told apart, `said` holds them in place of `text`, and `has_calls` says whether there
    was any call until now. `prompt` holds log probabilities of further prompt tokens, None for the first.
    """

    choice: int
    text: str = ""
    ids: tuple[int, ...] = ()
    tokens: tuple[ToldToken, ...] = ()
    finish: Finish | None = None
    said: tuple[Said, ...] = ()
    has_calls: bool = False
    prompt: tuple[TokenLogprob | None, ...] = ()


@dataclass(slots=True)
class Generation:
    """One request on its way to the reader. `feed` it deltas until `is_done`.

    `echo` is the prompt's text where it is told first (`prompt_news.py`); `first_choice` the number of sample 0 among
    all choices. With `prompt_only` the drawn tokens are neither told nor counted.
    """

    request: Request
    tokenizer: Tokenizer
    first_choice: int = 0
    echo: str | None = None
    prompt_only: bool = False
    speech: Speech | None = None
    num_cached: int = 0
    num_tokens: int = 0
    _texts: list[SampleText] = field(default_factory=list)
    _hearings: list[Hearing] = field(default_factory=list)
    _running: set[int] = field(default_factory=set)
    _prompt: PromptTeller = field(init=False)
    _held: list[Delta] = field(default_factory=list)

    def __post_init__(self) -> None:
        params = self.request.params
        self._running = set(range(params.n))
        self._prompt = PromptTeller(self.request, self.tokenizer, self.echo)
        self._texts = [
            SampleText(
                self.tokenizer,
                self.request.prompt,
                params.stop_strings,
                include_stop=params.include_stop_str_in_output,
                skip_special_tokens=params.skip_special_tokens,
                min_tokens=params.min_tokens,
                shown=frozenset() if self.speech is None else self.speech.shown,
            )
            for _ in range(params.n)
        ]
        if self.speech is not None:
            self._hearings = [Hearing(self.speech) for _ in range(params.n)]

    @property
    def num_thought(self) -> int:
        """Tokens that were reasoning."""
        return sum([hearing.num_thought for hearing in self._hearings])

    @property
    def is_done(self) -> bool:
        """True when every sample has ended, by the engine or by a stop string."""
        return not self._running

    def goes_on(self, index: int) -> bool:
        """Whether sample `index` wants more tokens."""
        return index in self._running

    def feed(self, delta: Delta) -> list[Piece]:
        """Pieces that `delta` brings. Raises its `failure`, or `EngineDead`, if a sample ended that way."""
        if delta.finish is Finish.ERROR:
            raise failure(delta.error)
        if delta.finish is Finish.ABORT and delta.index in self._running:
            raise EngineDead("the engine gave this request up")
        self.num_cached = max(self.num_cached, delta.num_cached)
        pieces = self._prompt_pieces(delta)
        if delta.tokens or delta.finish:
            self._held.append(delta)
        if not self._prompt.is_over:
            return pieces
        ready, self._held = self._held, []
        return pieces + [piece for each in ready if (piece := self._piece(each)) is not None]

    def _prompt_pieces(self, delta: Delta) -> list[Piece]:
        """What is told of the prompt goes out before any answer, to every choice, as it comes."""
        news = self._prompt.take(delta.prompt_logprobs)
        if news is None:
            return []
        choices = [self.first_choice + index for index in sorted(self._running)]
        return [Piece(choice, news.text, tokens=news.tokens, prompt=news.logprobs) for choice in choices]

    def _piece(self, delta: Delta) -> Piece | None:
        if delta.index not in self._running:
            return None
        sample = self._texts[delta.index]
        choice = self.first_choice + delta.index
        if self.prompt_only:
            self._running.discard(delta.index)
            return Piece(choice, finish=Finish.LENGTH)
        hearing = self._hearings[delta.index] if self._hearings else None
        text, tokens = self._read(sample, hearing, delta)
        is_over = sample.stopped is not None or (hearing is not None and hearing.is_over)
        finish = Finish.STOP if is_over else delta.finish
        if finish is not None:
            self._running.discard(delta.index)
        self.num_tokens += len(tokens)
        told = tokens if self.request.params.logprobs is not None else ()
        ids = tuple([token.id for token in tokens])
        if hearing is None:
            return Piece(choice, text, ids, told, finish)
        if finish is not None:
            hearing.end()
        return Piece(choice, "", ids, told, finish, hearing.news(), hearing.has_calls)

    def _read(self, sample: SampleText, hearing: Hearing | None, delta: Delta) -> tuple[str, tuple[ToldToken, ...]]:
        """The text that `delta` adds, and its tokens up to a stop string or the one call. What is heard has no text."""
        shown: list[str] = []
        told: list[ToldToken] = []
        base = len(self.echo or "")
        for place, token in enumerate(delta.tokens):
            if sample.stopped is not None or (hearing is not None and hearing.is_over):
                break
            told.append(ToldToken(token, base + sample.num_characters, self._logprob(delta, place)))
            shown.append(sample.push([token], hidden=int(self._is_hidden(delta, place))))
            if hearing is not None:
                hearing.take(shown.pop())
        if delta.finish is not None:
            shown.append(sample.push([], ended=True))
            if hearing is not None:
                hearing.take(shown.pop())
        return "".join(shown), tuple(told)

    def _is_hidden(self, delta: Delta, place: int) -> bool:
        """The token that ended a sample is not shown, unless stops are asked for."""
        is_end = delta.stop_token is not None and place == len(delta.tokens) - 1
        return is_end and not self.request.params.include_stop_str_in_output

    def _logprob(self, delta: Delta, place: int) -> TokenLogprob | None:
        """That of token `place`, where they are told; a token without one is a mistake of ours, not a null."""
        if self.request.params.logprobs is None:
            return None
        if place >= len(delta.logprobs):
            raise InternalError("a drawn token has no log probability", got=delta.tokens[place])
        return delta.logprobs[place]
