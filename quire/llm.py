"""`LLM`: the engine driven in the caller's thread, with vLLM's names and shapes, so that scripts move over unchanged.

Knows: the engine, the tokenizer and the template. Does not know: HTTP, asyncio, or how a step is decided.
"""

from __future__ import annotations

import collections
import itertools
import secrets
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from quire.answer import Answer
from quire.beams import Beams, BeamSearchParams
from quire.engine.build import build_engine
from quire.engine.grammars import compile_with
from quire.errors import ContextLengthExceeded, RequestError
from quire.hardware import probe
from quire.model_spec import read_generation_defaults, read_model_spec
from quire.outputs import BeamSearchOutput, BeamSearchSequence, CompletionOutput, RequestOutput
from quire.plan import plan
from quire.request import Constraint, Request, SamplingParams, check_constrained
from quire.sampling_params import check_spaces, truncated
from quire.settings import EngineSettings
from quire.structured.source import grammar_of
from quire.text.bad_words import bad_sequences
from quire.text.template import ChatTemplate
from quire.text.tokenizer import Tokenizer

BUNDLED = Path(__file__).parent / "bundled"

Prompt = str | Sequence[int] | Mapping[str, Any]
Message = Mapping[str, Any]


class LLM:
    """A model in this process. `model` is a folder (None: the bundled model); options are `EngineSettings` fields.

    Raises `StartError` if the model or an option cannot be used.
    """

    def __init__(self, model: str | Path | None = None, **options: Any) -> None:
        folder = Path(model) if model is not None else BUNDLED
        self.spec = read_model_spec(folder)
        settings = EngineSettings(**{"itl_target": 0.0, **options})  # answers are read when they are whole
        self.plan = plan(settings, probe(), self.spec, str(folder))
        built = build_engine(self.plan, folder)
        self.engine, self.device, self.notes = built.engine, built.device, built.notes
        self.receipt = built.receipt
        self._grammars = built.grammars
        self.tokenizer = Tokenizer.from_folder(folder)
        self.template = ChatTemplate.from_folder(folder, now=datetime.now)
        self._defaults = read_generation_defaults(folder)
        self._numbers = itertools.count()

    def get_tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self.tokenizer

    def get_default_sampling_params(self) -> SamplingParams:
        """What the model's generation_config.json recommends."""
        return replace(SamplingParams(), **self._defaults.as_params())

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: bool = False,
    ) -> list[RequestOutput]:
        """Answers in the prompts' order; all of them run together.

        A prompt is a string, a list of token ids, or {"prompt": ...} / {"prompt_token_ids": [...]}. One
        `SamplingParams` for all, or one each. `use_tqdm` is accepted and ignored.
        """
        listed = _as_list(prompts)
        params = self._params_for(len(listed), sampling_params)
        return self._run(listed, params)

    def beam_search(
        self, prompts: Prompt | Sequence[Prompt], params: BeamSearchParams, use_tqdm: bool = False
    ) -> list[BeamSearchOutput]:
        """The `params.beam_width` best sequences of each prompt, best first; all prompts run together.

        Beams share the KV blocks of their common past. Rules, scores and early stopping are transformers' (`Beams`).
        """
        beams = Beams(params.beam_width, params.length_penalty, params.early_stopping)
        wanted = SamplingParams(
            n=params.beam_width,
            temperature=params.temperature,
            max_tokens=params.max_tokens,
            min_tokens=params.min_tokens,
            ignore_eos=params.ignore_eos,
            stop_token_ids=params.stop_token_ids,
            logprobs=0,
        )
        listed = _as_list(prompts)
        found = self._run(listed, [wanted] * len(listed), beams)
        keep_end = params.include_stop_str_in_output
        return [
            BeamSearchOutput([self._sequence(output, each, keep_end) for each in output.outputs]) for output in found
        ]

    def _sequence(self, output: RequestOutput, sample: CompletionOutput, keep_end: bool) -> BeamSearchSequence:
        hidden = sample.finish_reason == "stop" and not keep_end
        tokens = [*output.prompt_token_ids, *sample.token_ids[: len(sample.token_ids) - hidden]]
        text = self.tokenizer.decode(tokens, skip_special_tokens=False)
        score, logprobs = sample.cumulative_logprob or 0.0, sample.logprobs or []
        return BeamSearchSequence(tokens, logprobs, score, text, sample.finish_reason, sample.stop_reason)

    def _run(
        self, prompts: Sequence[Prompt], params: Sequence[SamplingParams], beams: Beams | None = None
    ) -> list[RequestOutput]:
        """Whole answers, in the prompts' order."""
        answers: dict[str, Answer] = {}
        try:
            for prompt, each in zip(prompts, params, strict=True):
                answer = self._open(prompt, each, beams)
                answers[answer.request.id] = answer
            while not all(answer.output.finished for answer in answers.values()):
                collections.deque(self._step(answers), maxlen=0)
        finally:
            self._leave(answers)
        return [answer.output for answer in answers.values()]

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: bool = False,
        add_generation_prompt: bool = True,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[RequestOutput]:
        """Answers to one conversation, or to several at once. `tools` are shown to the model; answers stay text."""
        several = [messages] if messages and isinstance(messages[0], Mapping) else list(messages)
        prompts = [self._render(each, add_generation_prompt, chat_template_kwargs, tools) for each in several]
        return self.generate(prompts, sampling_params, use_tqdm)

    def stream(self, prompt: Prompt, params: SamplingParams) -> Generator[str, None, RequestOutput]:
        """Text of sample 0 as it comes; the generator returns the whole answer. Leaving it early aborts the request."""
        answer = self._open(prompt, params)
        answers = {answer.request.id: answer}
        try:
            while not answer.output.finished:
                text = "".join(text for index, text in self._step(answers) if index == 0)
                if text:
                    yield text
            return answer.output
        finally:
            self._leave(answers)

    def chat_prompt(self, messages: Sequence[Message]) -> Prompt:
        """The conversation as `generate` and `stream` take it: rendered by the template, BOS and all."""
        return self._render(messages, True)

    def reset_prefix_cache(self) -> None:
        """Forget every cached prefix; only while nothing runs."""
        self.engine.scheduler.reset_prefix_cache()

    def close(self) -> None:
        """End the compute threads; the object is of no use afterwards."""
        self._grammars.close()
        self.device.close()

    def _render(
        self,
        messages: Any,
        add_generation_prompt: bool,
        kwargs: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> Prompt:
        text = self.template.render(messages, tools=tools, add_generation_prompt=add_generation_prompt, kwargs=kwargs)
        return {"prompt": text, "prompt_token_ids": self.tokenizer.encode(text, add_special_tokens=False)}

    def _params_for(
        self, count: int, params: SamplingParams | Sequence[SamplingParams] | None
    ) -> Sequence[SamplingParams]:
        if params is None:
            params = self.get_default_sampling_params()
        if isinstance(params, SamplingParams):
            return [params] * count
        if len(params) != count:
            raise RequestError("one SamplingParams for each prompt is needed", got=len(params), allowed=count)
        return params

    def _open(self, prompt: Prompt, params: SamplingParams, beams: Beams | None = None) -> Answer:
        check_spaces(params, self.tokenizer.puts_spaces)
        text, ids = self._ids(prompt)
        ids = truncated(ids, params, self.plan.max_model_len, params.max_tokens or 1)
        room = self.plan.max_model_len - len(ids)
        if room < 1:
            raise ContextLengthExceeded(
                "the prompt does not fit the context",
                got=f"{len(ids)} tokens",
                allowed=f"at most {self.plan.max_model_len - 1}",
                param="prompt",
            )
        whole = replace(
            params,
            seed=secrets.randbits(63) if params.seed is None else params.seed,
            max_tokens=room if params.max_tokens is None else min(params.max_tokens, room),
            structured_outputs=None,
        )
        constraint = self._constraint(params)
        bad = bad_sequences(self.tokenizer, params.bad_words or ())
        name = str(next(self._numbers))
        request = Request(name, ids, whole, self.spec.eos_ids, constraint=constraint, beams=beams, bad_sequences=bad)
        self.engine.add(request, time.monotonic())
        return Answer(request, text, self.tokenizer)

    def _constraint(self, params: SamplingParams) -> Constraint | None:
        """The compiled form of `params`. Raises `RequestError`."""
        if params.structured_outputs is None:
            return None
        check_constrained(params)
        constraint = Constraint(grammar_of(params.structured_outputs, self.tokenizer.special_texts))
        compile_with(self._grammars, constraint)
        return constraint

    def _ids(self, prompt: Prompt) -> tuple[str | None, tuple[int, ...]]:
        text: str | None = None
        if isinstance(prompt, Mapping):
            text, ids = prompt.get("prompt"), prompt.get("prompt_token_ids")
        else:
            text, ids = (prompt, None) if isinstance(prompt, str) else (None, prompt)
        if ids is None:
            if not isinstance(text, str):
                raise RequestError("a prompt is neither text nor token ids", got=prompt, param="prompt")
            ids = self.tokenizer.encode(text)
        outside = next((token for token in ids if not 0 <= token < self.spec.vocab_size), None)
        if outside is not None:
            raise RequestError(
                "a token id is out of range", got=outside, allowed=f"0 to {self.spec.vocab_size - 1}", param="prompt"
            )
        return text, tuple(ids)

    def _leave(self, answers: Mapping[str, Answer]) -> None:
        """Nothing of these requests stays in the engine, however they ended."""
        for request_id in answers:
            self.engine.abort(request_id)

    def _step(self, answers: Mapping[str, Answer]) -> Iterator[tuple[int, str]]:
        """One engine step: (sample index, new text) of what these answers, by request id, gained."""
        report = self.engine.step(time.monotonic())
        for delta in report.deltas if report else ():
            answer = answers.get(delta.request_id)
            if answer is not None:
                yield delta.index, answer.take(delta)
                if delta.finish is None and answer.output.outputs[delta.index].finish_reason is not None:
                    self.engine.abort(answer.request.id, delta.index, served=True)  # at a stop string


def _as_list(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """One prompt or several: a list of integers is one prompt."""
    if isinstance(prompts, (str, Mapping)) or (len(prompts) and isinstance(prompts[0], int)):
        return [prompts]  # type: ignore[list-item]
    return list(prompts)  # type: ignore[arg-type]
