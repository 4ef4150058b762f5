"""Where the server is, and things to ask it for that a tiny model fills in validly: short texts, few choices."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Annotated, Literal

import openai
import pytest
from pydantic import BaseModel, Field

URL, KEY, MODEL = os.environ["QUIRE_URL"], os.environ["QUIRE_KEY"], "default"
ASK = [{"role": "user", "content": "Ana is 31 years old and likes tea."}]


class Person(BaseModel):
    """A person that is spoken of."""

    name: Annotated[str, Field(max_length=20)]
    age: Annotated[int, Field(ge=0, le=150)]
    mood: Literal["glad", "sad"]
    likes: Annotated[list[Literal["tea", "milk"]], Field(max_length=3)]


class Weather(BaseModel):
    """The weather at a place."""

    city: Annotated[str, Field(max_length=20)]
    unit: Literal["celsius", "fahrenheit"]


@pytest.fixture
def client() -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=60) as made:
        yield made
