"""The official client against a real HTTP server: every way in which people use it here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from served import MAX_MODEL_LEN, TEXT, Served, says, served, wait_until

openai = pytest.importorskip("openai")


@pytest.fixture(scope="module")
def client(talker: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{talker.url}/v1", api_key="unused", max_retries=0, timeout=20) as made:
        yield made


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["bundled", "org/other-name"]
    assert client.models.retrieve("org/other-name").id == "org/other-name"
    assert client.models.retrieve("default").id == "bundled"


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="default",
        messages=[{"role": "user", "content": "Tell me a story."}],
        temperature=0,
        logprobs=True,
        top_logprobs=1,
        user="someone",
        extra_body={"top_k": 5, "repetition_penalty": 1.0},
    )
    assert answer.model == "bundled"
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len(answer.choices[0].logprobs.content)
    again = [{"role": "user", "content": "Tell me a story."}, answer.choices[0].message.model_dump()]
    more = [*again, {"role": "user", "content": "More."}]
    assert client.chat.completions.create(model="default", messages=more).choices[0].message.content == TEXT


def test_chat_stream(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="bundled",
            messages=[{"role": "user", "content": "Hi"}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == TEXT
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.total_tokens > 0


def test_the_stream_helper_of_the_client(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="bundled", messages=[{"role": "user", "content": "Hi"}]) as stream:
        for _ in stream:
            pass
        assert stream.get_final_completion().choices[0].message.content == TEXT


def test_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="bundled", prompt=["a", "b"], n=2, max_tokens=3, echo=True, logprobs=1)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.choices[3].text.startswith("b")
    assert answer.choices[0].logprobs.token_logprobs[0] is None
    stream = client.completions.create(model="bundled", prompt="x", stream=True, max_tokens=100)
    assert "".join(chunk.choices[0].text for chunk in stream) == TEXT


def test_a_finish_reason_that_openai_lacks_is_read_whole_and_streamed() -> None:
    limit = {"repetition_detection": {"max_pattern_size": 8, "min_count": 3}}
    with (
        served(says("na na ", end=False)) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="k", max_retries=0) as client,
    ):
        said: dict[str, Any] = {"model": "bundled", "messages": [{"role": "user", "content": "Hi"}]}
        whole = client.chat.completions.create(**said, extra_body=limit)
        chunks = list(client.chat.completions.create(**said, stream=True, extra_body=limit))
        with client.chat.completions.stream(**said, extra_body=limit) as helper:
            final = helper.get_final_completion()
        text = client.completions.create(model="bundled", prompt="x", max_tokens=90, extra_body=limit)
    told = [whole.choices[0], chunks[-1].choices[0], final.choices[0], text.choices[0]]
    assert [choice.finish_reason for choice in told] == ["repetition"] * 4
    assert "na" in whole.choices[0].message.content == final.choices[0].message.content


def test_errors_are_the_client_s_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        client.completions.create(model="bundled", prompt="x", max_tokens=MAX_MODEL_LEN)
    assert bad.value.code == "context_length_exceeded"
    assert bad.value.param == "max_tokens"
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="gpt-4", prompt="x")
    assert missing.value.code == "model_not_found"


def test_a_client_that_breaks_off_frees_the_engine() -> None:
    with served(says("word " * 50, end=False)) as server:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="k", max_retries=0) as client:
            stream = client.completions.create(model="bundled", prompt="x", stream=True, max_tokens=500)
            next(iter(stream))
            stream.close()
        wait_until(server.is_idle)


def test_a_key_and_many_at_once() -> None:
    with served(says(TEXT), api_key="sk-one") as server:

        async def ask(key: str, number: int) -> list[str]:
            async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client:
                asked = [
                    client.chat.completions.create(model="default", messages=[{"role": "user", "content": f"Hi {i}"}])
                    for i in range(number)
                ]
                return [answer.choices[0].message.content for answer in await asyncio.gather(*asked)]

        assert asyncio.run(ask("sk-one", 40)) == [TEXT] * 40
        with pytest.raises(openai.AuthenticationError):
            asyncio.run(ask("sk-two", 1))


CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Bern"}}\n</tool_call>'
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather at a place",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


@pytest.fixture(scope="module")
def calling() -> Iterator[openai.OpenAI]:
    """Calls a tool, whatever is asked."""
    with (
        served(says(f"One moment.\n{CALL}\n{CALL}")) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=20) as made,
    ):
        yield made


def test_tools(calling: openai.OpenAI) -> None:
    asked = [{"role": "user", "content": "Weather in Bern?"}]
    answer = calling.chat.completions.create(model="default", messages=asked, tools=[TOOL])
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls"
    assert [call.function.name for call in message.tool_calls] == ["get_weather"] * 2
    told = [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in message.tool_calls]
    again = calling.chat.completions.create(model="default", messages=[*asked, message, *told], tools=[TOOL])
    assert again.choices[0].message.content == "One moment."


def test_the_stream_helper_and_parse_put_calls_together(calling: openai.OpenAI) -> None:
    pydantic = pytest.importorskip("pydantic")
    weather = pydantic.create_model("get_weather", city=(str, ...))
    asked = {"model": "default", "messages": [{"role": "user", "content": "Weather?"}]}
    tools = [openai.pydantic_function_tool(weather)]
    with calling.chat.completions.stream(**asked, tools=tools) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion().choices[0]
    assert kinds.count("tool_calls.function.arguments.done") == 2
    assert "tool_calls.function.arguments.delta" in kinds
    parsed = calling.chat.completions.parse(**asked, tools=tools).choices[0]
    for choice in (final, parsed):
        assert choice.message.content == "One moment."
        assert [call.function.parsed_arguments.city for call in choice.message.tool_calls] == ["Bern"] * 2
