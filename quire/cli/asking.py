"""A model in this process for people's commands: loading it, its sampling, one streamed answer.

Knows: `LLM`. Does not know: where questions come from or where answers go.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from quire.cli.prepare import Prepared
from quire.errors import RequestError
from quire.llm import LLM, Prompt
from quire.outputs import RequestOutput
from quire.request import SamplingParams
from quire.settings import EngineSettings

Message = Mapping[str, Any]
Overrides = tuple[int | None, float | None, int | None]  # max_tokens, temperature, seed; None: the model's own


def load(prepared: Prepared, settings: EngineSettings) -> LLM:
    """The prepared model, ready to answer; what there is to note about it goes to stderr."""
    llm = LLM(prepared.folder, **asdict(settings))
    for note in llm.notes:
        print(f"note     {note}", file=sys.stderr)
    return llm


def sampling(llm: LLM, overrides: Overrides) -> SamplingParams:
    """The model's own defaults under what was asked for; without --max-tokens an answer may fill the context."""
    max_tokens, temperature, seed = overrides
    params = replace(llm.get_default_sampling_params(), max_tokens=max_tokens, seed=seed)
    return params if temperature is None else replace(params, temperature=temperature)


def stream(llm: LLM, prompt: Prompt, params: SamplingParams, write: Callable[[str], None]) -> RequestOutput:
    """Hand every piece of text to `write` as it comes; the whole answer at the end."""
    pieces = llm.stream(prompt, params)
    while True:
        try:
            text = next(pieces)
        except StopIteration as end:
            output: RequestOutput = end.value
            return output
        write(text)


def check_template(llm: LLM, hint: str) -> None:
    """Refuse a model that was never taught to talk, before anything is asked."""
    if not llm.template.digest:
        raise RequestError("this model has no chat template", hint=hint)


def conversation(question: str, system: str | None, earlier: Sequence[Message] = ()) -> list[Message]:
    """System message, what was said, and the new question."""
    first = [{"role": "system", "content": system}] if system else []
    return [*first, *earlier, {"role": "user", "content": question}]
