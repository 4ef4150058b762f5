"""instructor: a pydantic model out of an answer, by every mode that a chat server can serve."""

from __future__ import annotations

import asyncio

import instructor
import openai
import pytest
from conftest import ASK, KEY, MODEL, URL, Person, Weather
from instructor import Mode
from pydantic import BaseModel

MODES = (Mode.TOOLS, Mode.JSON, Mode.JSON_SCHEMA)


class Free(BaseModel, extra="allow"):
    """Any object."""


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_a_model_comes_back(client: openai.OpenAI, mode: Mode) -> None:
    patched = instructor.from_openai(client, mode=mode)
    found, completion = patched.chat.completions.create_with_completion(
        model=MODEL, messages=ASK, response_model=Person, max_retries=0, **extra(mode)
    )
    assert isinstance(found, Person)
    assert completion.choices[0].finish_reason in ("stop", "tool_calls")


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_parts_of_a_model_are_streamed(client: openai.OpenAI, mode: Mode) -> None:
    patched = instructor.from_openai(client, mode=mode)
    asked = {"model": MODEL, "messages": ASK, "response_model": Person}
    parts = list(patched.chat.completions.create_partial(**asked, **extra(mode)))
    assert len(parts) > 2
    Person.model_validate(parts[-1].model_dump())


def test_json_mode_as_it_is(client: openai.OpenAI) -> None:
    patched = instructor.from_openai(client, mode=Mode.JSON)
    found = patched.chat.completions.create(
        model=MODEL, messages=ASK, response_model=Free, max_retries=0, temperature=0, max_tokens=400
    )
    assert isinstance(found, Free)


def test_several_models_are_streamed(client: openai.OpenAI) -> None:
    patched = instructor.from_openai(client, mode=Mode.JSON_SCHEMA)
    several = {"type": "array", "items": Weather.model_json_schema(), "minItems": 2, "maxItems": 3}
    schema = {"type": "object", "properties": {"tasks": several}, "required": ["tasks"], "additionalProperties": False}
    found = list(
        patched.chat.completions.create_iterable(
            model=MODEL, messages=ASK, response_model=Weather, extra_body=held(schema)
        )
    )
    assert len(found) in (2, 3)
    assert all(isinstance(each, Weather) for each in found)


def test_asynchronously() -> None:
    async def ask() -> Person:
        async with openai.AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=0) as client:
            patched = instructor.from_openai(client, mode=Mode.JSON_SCHEMA)
            asked = {"model": MODEL, "messages": ASK, "response_model": Person}
            return await patched.chat.completions.create(**asked, max_retries=0)

    assert isinstance(asyncio.run(ask()), Person)


def extra(mode: Mode) -> dict[str, object]:
    """JSON mode says in words which fields there are; a model this small is told by the schema itself."""
    return {"extra_body": held(Person.model_json_schema())} if mode is Mode.JSON else {}


def held(schema: dict[str, object]) -> dict[str, object]:
    """Takes the place of what instructor asks for."""
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "held", "schema": schema}}}
