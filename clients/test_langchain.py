"""langchain-openai: messages, streams, tools, batches, and structured output by all its methods."""

from __future__ import annotations

import asyncio

import pytest
from conftest import KEY, MODEL, URL, Person, Weather
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI, OpenAI

ABOUT = "Ana is 31 years old and likes tea."


@pytest.fixture
def chat() -> ChatOpenAI:
    return ChatOpenAI(base_url=URL, api_key=KEY, model=MODEL, temperature=0, max_retries=0, timeout=60)


def test_invoke(chat: ChatOpenAI) -> None:
    answer = chat.invoke([SystemMessage("Be brief."), HumanMessage("Hello!")])
    assert isinstance(answer, AIMessage)
    assert answer.content
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.usage_metadata["total_tokens"] > answer.usage_metadata["input_tokens"] > 0


def test_stream(chat: ChatOpenAI) -> None:
    chunks = list(chat.stream("Hello!", stream_usage=True))
    whole = sum(chunks[1:], chunks[0])
    assert whole.content == chat.invoke("Hello!").content
    assert whole.usage_metadata["output_tokens"] > 1
    assert whole.response_metadata["finish_reason"] == "stop"


def test_batch_and_a_chain(chat: ChatOpenAI) -> None:
    chain = ChatPromptTemplate.from_messages([("user", "Hello, {name}!")]) | chat
    answers = chain.batch([{"name": name} for name in ("Ana", "Ben", "Eva")])
    assert all(answer.content for answer in answers)
    alone = [chain.invoke({"name": name}).content for name in ("Ana", "Ben", "Eva")]
    assert [answer.content for answer in answers] == alone


def test_asynchronously(chat: ChatOpenAI) -> None:
    async def ask() -> tuple[str, str]:
        text = "".join([chunk.content async for chunk in chat.astream("Hello!")])
        return text, (await chat.ainvoke("Hello!")).content

    streamed, whole = asyncio.run(ask())
    assert streamed == whole


@pytest.mark.parametrize("choice", ["any", "Weather", True])
@pytest.mark.parametrize("strict", [True, None])
def test_bound_tools(chat: ChatOpenAI, choice: object, strict: bool | None) -> None:
    tools = [Weather] if choice is True else [Weather, Person]
    bound = chat.bind_tools(tools, tool_choice=choice, strict=strict)
    answer = bound.invoke("What is the weather in Oslo?")
    assert answer.invalid_tool_calls == []
    for call in answer.tool_calls:
        {"Weather": Weather, "Person": Person}[call["name"]].model_validate(call["args"])
    assert answer.tool_calls
    chunks = list(bound.stream("What is the weather in Oslo?"))
    streamed = sum(chunks[1:], chunks[0]).tool_calls
    assert [call["args"] for call in streamed] == [call["args"] for call in answer.tool_calls]


def test_a_tool_s_round_trip(chat: ChatOpenAI) -> None:
    bound = chat.bind_tools([Weather], tool_choice="Weather")
    asked = [HumanMessage("What is the weather in Oslo?")]
    called = bound.invoke(asked)
    told = [ToolMessage('{"temperature": 12, "sky": "sunny"}', tool_call_id=call["id"]) for call in called.tool_calls]
    assert chat.bind_tools([Weather]).invoke([*asked, called, *told]).content


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
@pytest.mark.parametrize("include_raw", [False, True])
def test_structured_output(chat: ChatOpenAI, method: str, include_raw: bool) -> None:
    if method == "json_mode":  # any object will do: a schema without fields
        found = chat.with_structured_output(None, method=method, include_raw=include_raw).invoke("Write JSON: " + ABOUT)
        assert isinstance(found["parsed"] if include_raw else found, dict)
        return
    found = chat.with_structured_output(Person, method=method, include_raw=include_raw).invoke(ABOUT)
    if include_raw:
        assert found["parsing_error"] is None
        found = found["parsed"]
    assert isinstance(found, Person)


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output_is_streamed(chat: ChatOpenAI, method: str) -> None:
    schema = Person.model_json_schema() | {"title": "Person", "description": "A person."}
    parts = list(chat.with_structured_output(schema, method=method).stream(ABOUT))
    Person.model_validate(parts[-1])


def test_completions() -> None:
    model = OpenAI(base_url=URL, api_key=KEY, model=MODEL, temperature=0, max_tokens=8, max_retries=0)
    assert model.invoke("Once upon a time") == "".join(model.stream("Once upon a time"))
    assert len(model.batch(["Once", "The cat"])) == 2
