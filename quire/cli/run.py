"""`quire run`: one question, one answer on stdout.

Knows: how an answer is printed. Does not know: how it is made.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

from quire.cli.asking import Overrides, check_template, conversation, load, sampling, stream
from quire.cli.prepare import prepare
from quire.outputs import RequestOutput
from quire.settings import EngineSettings


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked; `raw` text is continued as it is, without a chat template."""

    text: str
    system: str | None = None
    raw: bool = False


def answer(
    question: Question,
    model: str | None,
    revision: str | None,
    settings: EngineSettings,
    overrides: Overrides,
    as_json: bool,
) -> None:
    """Stream the answer as text, or print one JSON object when it is whole."""
    prepared = prepare(model, revision, settings)
    llm = load(prepared, settings)
    if not question.raw:
        check_template(llm, "Use --raw to continue the text as it is.")
    prompt = question.text if question.raw else llm.chat_prompt(conversation(question.text, question.system))
    output = stream(llm, prompt, sampling(llm, overrides), _ignore if as_json else _write)
    sys.stdout.write(as_object(output, prepared.name) if as_json else "")
    _write("\n")
    llm.close()


def as_object(output: RequestOutput, model: str) -> str:
    """The answer as one line of JSON."""
    sample = output.outputs[0]
    return json.dumps(
        {
            "model": model,
            "text": sample.text,
            "finish_reason": sample.finish_reason,
            "prompt_tokens": len(output.prompt_token_ids),
            "completion_tokens": len(sample.token_ids),
        },
        ensure_ascii=False,
    )


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _ignore(text: str) -> None:
    """Text that is not shown piece by piece."""
