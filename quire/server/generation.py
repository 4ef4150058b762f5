"""Deltas of one engine request to pieces of text: detokenized, ended by stop strings, echo and all.

Knows: one request, its tokenizer, how many of its samples go on. Does not know: chunks, HTTP, other prompts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from quire.errors import EngineDead, GenerationFailed
from quire.request import Finish, Request
from quire.server.hearing import Hearing
from quire.server.speech import Speech
from quire.step import Delta, TokenLogprob
from quire.text.detokenizer import Detokenizer
from quire.text.formats.said import Said
from quire.text.sample_text import SampleText
from quire.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class ToldToken:
    """A token as logprobs list it. `offset`: characters of the choice's text before it; `logprob` None: unknown."""

    id: int
    offset: int
    logprob: TokenLogprob | None


@dataclass(frozen=True, slots=True)
class Piece:
    """What one choice gained. `tokens` are filled only where logprobs are told; `ids` count, shown or not.

    Where an answer's parts are told apart, `said` holds them in place of `text`, and `has_calls` says whether there
    was any call until now.
    """

    choice: int
    text: str = ""
    ids: tuple[int, ...] = ()
    tokens: tuple[ToldToken, ...] = ()
    finish: Finish | None = None
    said: tuple[Said, ...] = ()
    has_calls: bool = False


@dataclass(slots=True)
class Generation:
    """One request on its way to the reader. `feed` it deltas until `is_done`.

    `echo` is the prompt's text where it is told first; `first_choice` the number of sample 0 among all choices. With
    `prompt_only` the drawn tokens are neither told nor counted.
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
    _prompt_logprobs: list[TokenLogprob] = field(default_factory=list)
    _held: list[Delta] = field(default_factory=list)
    _echoed: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        params = self.request.params
        self._running = set(range(params.n))
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
        """Pieces that `delta` brings. Raises `GenerationFailed` or `EngineDead` if a sample ended that way."""
        if delta.finish is Finish.ERROR:
            raise GenerationFailed("the computation of this request went wrong", got=delta.error)
        if delta.finish is Finish.ABORT and delta.index in self._running:
            raise EngineDead("the engine gave this request up")
        self.num_cached = max(self.num_cached, delta.num_cached)
        self._prompt_logprobs += delta.prompt_logprobs
        self._held.append(delta)
        if not self._prompt_is_known():
            return []
        ready, self._held = self._held, []
        return [piece for each in ready if (piece := self._piece(each)) is not None]

    def _prompt_is_known(self) -> bool:
        """Echoed logprobs go out before the answer; samples wait until the prompt's last one has come."""
        if self.echo is None or self.request.params.prompt_logprobs is None:
            return True
        return len(self._prompt_logprobs) >= len(self.request.prompt) - 1

    def _piece(self, delta: Delta) -> Piece | None:
        if delta.index not in self._running or not (delta.tokens or delta.finish):
            return None
        sample = self._texts[delta.index]
        echo_text, echo_tokens = self._echo(delta.index)
        if self.prompt_only:
            self._running.discard(delta.index)
            return Piece(self.first_choice + delta.index, echo_text, (), echo_tokens, Finish.LENGTH)
        hearing = self._hearings[delta.index] if self._hearings else None
        text, tokens = self._read(sample, hearing, delta)
        is_over = sample.stopped is not None or (hearing is not None and hearing.is_over)
        finish = Finish.STOP if is_over else delta.finish
        if finish is not None:
            self._running.discard(delta.index)
        self.num_tokens += len(tokens)
        told = echo_tokens + tokens if self.request.params.logprobs is not None else ()
        ids = tuple([token.id for token in tokens])
        choice = self.first_choice + delta.index
        if hearing is None:
            return Piece(choice, echo_text + text, ids, told, finish)
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
            told.append(ToldToken(token, base + sample.num_characters, _at(delta.logprobs, place)))
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

    def _echo(self, index: int) -> tuple[str, tuple[ToldToken, ...]]:
        """The prompt's text and tokens before a sample's first piece, nothing later."""
        if self.echo is None or index in self._echoed:
            return "", ()
        self._echoed.add(index)
        if self.request.params.prompt_logprobs is None:
            return self.echo, ()
        params = self.request.params
        offsets = Detokenizer(self.tokenizer, (), params.skip_special_tokens).push_each(self.request.prompt)
        logprobs = [None, *self._prompt_logprobs]
        tokens = [ToldToken(at.token_id, at.offset, logprob) for at, logprob in zip(offsets, logprobs, strict=True)]
        return self.echo, tuple(tokens)


def _at(logprobs: tuple[TokenLogprob, ...], place: int) -> TokenLogprob | None:
    return logprobs[place] if place < len(logprobs) else None
