"""Deltas of one request folded into a `RequestOutput`: texts, ids, log probabilities, ends.

Knows: the request, the tokenizer and its deltas. Does not know: the engine or who asked.
"""

from __future__ import annotations

from quire.outputs import CompletionOutput, Logprob, Logprobs, PromptLogprobs, RequestOutput
from quire.request import Finish, Request
from quire.step import Delta, TokenLogprob, failure
from quire.text.sample_text import SampleText
from quire.text.tokenizer import Tokenizer


class Answer:
    """A `RequestOutput` in the making. `take` deltas until `output.finished`."""

    def __init__(self, request: Request, prompt: str | None, tokenizer: Tokenizer) -> None:
        self.request = request
        self._tokenizer = tokenizer
        params = request.params
        self._texts = [
            SampleText(
                tokenizer,
                request.prompt,
                params.stop_strings,
                include_stop=params.include_stop_str_in_output,
                skip_special_tokens=params.skip_special_tokens,
                min_tokens=params.min_tokens,
            )
            for _ in range(params.n)
        ]
        self.output = RequestOutput(
            request.id, prompt, list(request.prompt), [CompletionOutput(index) for index in range(params.n)]
        )
        self._prompt_logprobs = PromptLogprobs(tokenizer.token_text)
        if params.prompt_logprobs is not None:
            self.output.prompt_logprobs = self._prompt_logprobs

    def take(self, delta: Delta) -> str:
        """Add one delta; the text that it brought to its sample."""
        sample, text = self.output.outputs[delta.index], self._texts[delta.index]
        for entry in delta.prompt_logprobs:
            self._prompt_logprobs.add(entry.token, entry.logprob, entry.rank, entry.top)
        if sample.finish_reason is not None:
            return ""  # it ended at a stop string; the engine had gone a step further
        self.output.num_cached_tokens = max(self.output.num_cached_tokens, delta.num_cached)
        before = text.num_tokens
        shown = text.push(delta.tokens, ended=delta.finish is not None, hidden=int(self._hides(delta)))
        counted = text.num_tokens - before
        sample.text += shown
        sample.token_ids += delta.tokens[:counted]
        self._add_logprobs(sample, delta.logprobs[:counted])
        self._end(sample, text, delta)
        return shown

    def _hides(self, delta: Delta) -> bool:
        """The token that ended a sample is not shown, unless stops are asked for."""
        return delta.stop_token is not None and not self.request.params.include_stop_str_in_output

    def _add_logprobs(self, sample: CompletionOutput, entries: tuple[TokenLogprob, ...]) -> None:
        if self.request.params.logprobs is not None:
            sample.logprobs = (sample.logprobs or []) + [self._ranked(entry) for entry in entries]
            sample.cumulative_logprob = (sample.cumulative_logprob or 0.0) + sum(entry.logprob for entry in entries)

    def _end(self, sample: CompletionOutput, text: SampleText, delta: Delta) -> None:
        if text.stopped is not None:
            sample.finish_reason, sample.stop_reason = Finish.STOP.value, text.stopped
        elif delta.finish is not None:
            sample.finish_reason = delta.finish.value
            sample.error = failure(delta.error) if delta.finish is Finish.ERROR else None
            if delta.stop_token is not None and delta.stop_token not in self.request.eos_ids:
                sample.stop_reason = delta.stop_token

    def _ranked(self, entry: TokenLogprob) -> Logprobs:
        """The chosen token and the best ones, by id, as vLLM shapes them."""
        ranks = {entry.token: entry.rank} | {token: rank for rank, (token, _) in enumerate(entry.top, start=1)}
        values = {entry.token: entry.logprob, **dict(entry.top)}
        return {
            token: Logprob(value, ranks[token], self._tokenizer.token_text(token)) for token, value in values.items()
        }
