"""What an answer is held to besides its parameters: its form, compiled, its bad words as ids, its prompt cut to size.

Knows: a request's body and parameters. Does not know: who computes the answer, chunks, HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass

from quire.errors import UnsupportedField
from quire.request import Constraint, SamplingParams, check_constrained
from quire.sampling_params import RepetitionDetectionParams, check_spaces, truncated
from quire.server.forms import Content, prepared
from quire.server.prompts import Prompt
from quire.server.schema import GenerationBody
from quire.server.service import Service
from quire.server.speech import Speech
from quire.text.bad_words import bad_sequences

WORD_CHARACTERS = 128  # what finding a bad word's tokens costs, in characters of a prompt


@dataclass(frozen=True, slots=True)
class Held:
    """What answers are held to: a form, and sequences of tokens that they never complete."""

    constraint: Constraint | None
    bad_sequences: tuple[tuple[int, ...], ...]


async def held_to(
    service: Service,
    speech: Speech | None,
    content: Content | None,
    params: SamplingParams,
    owner: str,
    searched: bool = False,
) -> Held:
    """The content's form, within what its dialect and tools ask for, compiled; bad words as ids."""
    check_spaces(params, service.tokenizer.puts_spaces)
    words = params.bad_words or ()
    size = WORD_CHARACTERS * len(words)
    bad = await service.aside(size, bad_sequences, service.tokenizer, words) if words else ()
    grammar = content.grammar if content is not None else None
    if speech is not None and not speech.is_plain:
        grammar = speech.grammar
    if grammar is None:
        return Held(None, bad)
    form = content.param if content is not None else "tools"
    if searched:
        raise UnsupportedField(f"use_beam_search takes no {form}: a search has no form", param=form)
    check_constrained(params, form)
    return Held(await prepared(service, grammar, content, owner), bad)


def cut(service: Service, prompt: Prompt, params: SamplingParams, asked: int | None) -> Prompt:
    """`prompt` with the tokens that truncate_prompt_tokens keeps; what was cut reads as its ids."""
    ids = truncated(prompt.ids, params, service.plan.max_model_len, asked or 1)
    return prompt if ids == prompt.ids else Prompt(ids)


def repetition(body: GenerationBody) -> RepetitionDetectionParams | None:
    """`repetition_detection` in our words."""
    asked = body.repetition_detection
    return None if asked is None else RepetitionDetectionParams(**asked.model_dump())
