"""The official openai package: chat, streams and their helpers, tools, parsed answers, completions, errors."""

from __future__ import annotations

import asyncio
import json

import openai
import pytest
from conftest import ASK, KEY, MODEL, URL, Person, Weather

HELLO = [{"role": "user", "content": "Hello!"}]
TOOLS = [openai.pydantic_function_tool(Weather, name="get_weather"), openai.pydantic_function_tool(Person)]
NAMED = {"type": "function", "function": {"name": "Person"}}


def test_models(client: openai.OpenAI) -> None:
    (model,) = client.models.list()
    assert model.object == "model"
    assert client.models.retrieve(model.id).id == model.id == client.models.retrieve(MODEL).id


def test_chat_and_usage(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=HELLO, temperature=0)
    choice, usage = answer.choices[0], answer.usage
    assert choice.finish_reason == "stop"
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    cut = client.chat.completions.create(model=MODEL, messages=HELLO, temperature=0, max_completion_tokens=2)
    assert cut.choices[0].finish_reason == "length"
    assert cut.usage.completion_tokens == 2
    assert choice.message.content.startswith(cut.choices[0].message.content)


def test_roles_parts_and_what_changes_nothing(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hello!"}], "name": "ana"},
            {"role": "assistant", "content": "Hi."},
            {"role": "user", "content": "Who are you?"},
        ],
        metadata={"a": "b"},
        store=False,
        user="ana",
        service_tier="auto",
        safety_identifier="ana",
        prompt_cache_key="key",
        frequency_penalty=0.1,
        presence_penalty=0.1,
        logit_bias={"5": -100},
        stop=["\n\n", "zzz"],
        seed=1,
    )
    assert answer.choices[0].message.content


def test_a_stream_merges_into_the_whole_answer(client: openai.OpenAI) -> None:
    asked = {"model": MODEL, "messages": HELLO, "temperature": 0}
    whole = client.chat.completions.create(**asked).choices[0].message.content
    with client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}) as stream:
        chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == whole
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens > 1
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_stream_helper_and_its_events(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model=MODEL, messages=HELLO, temperature=0, logprobs=True, stream_options={"include_usage": True}
    ) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    kinds = [event.type for event in events]
    assert {"chunk", "content.delta", "content.done", "logprobs.content.delta", "logprobs.content.done"} <= set(kinds)
    text = final.choices[0].message.content
    assert text == "".join(event.delta for event in events if event.type == "content.delta")
    assert text == next(event.content for event in events if event.type == "content.done")
    tokens = [entry.token for entry in final.choices[0].logprobs.content]
    assert "".join(tokens[:-1]) == text  # the last is the token that ended the answer
    assert final.usage.completion_tokens > 1


def test_the_stream_helper_parses_as_it_goes(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=ASK, response_format=Person) as stream:
        events = list(stream)
        final = stream.get_final_completion().choices[0].message
    assert any(event.type == "content.delta" and event.parsed for event in events)
    done = next(event for event in events if event.type == "content.done")
    assert isinstance(done.parsed, Person)
    assert final.parsed == done.parsed


def test_the_stream_helper_puts_tool_calls_together(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=ASK, tools=TOOLS, tool_choice="required") as stream:
        events = list(stream)
        (call, *_) = stream.get_final_completion().choices[0].message.tool_calls
    pieces = [event for event in events if event.type == "tool_calls.function.arguments.delta" and event.index == 0]
    done = next(event for event in events if event.type == "tool_calls.function.arguments.done")
    assert "".join(event.arguments_delta for event in pieces) == done.arguments == call.function.arguments
    assert isinstance(call.function.parsed_arguments, Person | Weather)


def test_parse_gives_a_model(client: openai.OpenAI) -> None:
    for temperature in (0, 2):
        answer = client.chat.completions.parse(
            model=MODEL, messages=ASK, response_format=Person, temperature=temperature, seed=1
        )
        assert isinstance(answer.choices[0].message.parsed, Person)
        assert answer.choices[0].finish_reason == "stop"
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(model=MODEL, messages=ASK, response_format=Person, max_tokens=3)


def test_parse_reads_tool_calls(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(model=MODEL, messages=ASK, tools=TOOLS, tool_choice=NAMED)
    (call,) = answer.choices[0].message.tool_calls
    assert isinstance(call.function.parsed_arguments, Person)


@pytest.mark.parametrize("kind", ["json_object", "json_schema"])
def test_json_without_a_model(client: openai.OpenAI, kind: str) -> None:
    form = {"type": kind}
    if kind == "json_schema":
        form["json_schema"] = {"name": "person", "schema": Person.model_json_schema(), "strict": False}
    answer = client.chat.completions.create(
        model=MODEL, messages=ASK, response_format=form, temperature=0, max_tokens=400
    )
    assert answer.choices[0].finish_reason == "stop"
    found = json.loads(answer.choices[0].message.content)
    assert isinstance(found, dict)
    if kind == "json_schema":
        Person.model_validate(found)


def test_a_tool_s_round_trip(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "What is the weather in Oslo?"}]
    asked = {"model": MODEL, "temperature": 0, "tools": TOOLS[:1]}
    first = client.chat.completions.create(**asked, messages=messages, tool_choice="auto")
    assert first.choices[0].finish_reason == "tool_calls"
    (call,) = first.choices[0].message.tool_calls
    assert call.type == "function"
    assert call.function.name == "get_weather"
    Weather.model_validate_json(call.function.arguments)
    told = {"role": "tool", "tool_call_id": call.id, "content": json.dumps({"temperature": 12, "sky": "sunny"})}
    second = client.chat.completions.create(**asked, messages=[*messages, first.choices[0].message, told])
    assert second.choices[0].finish_reason == "stop"
    assert second.choices[0].message.content
    assert second.choices[0].message.tool_calls is None


@pytest.mark.parametrize("choice", ["required", NAMED, "none"])
@pytest.mark.parametrize("parallel", [True, False])
def test_tool_choice(client: openai.OpenAI, choice: object, parallel: bool) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=ASK, tools=TOOLS, tool_choice=choice, parallel_tool_calls=parallel
    )
    calls = answer.choices[0].message.tool_calls
    if choice == "none":
        assert calls is None
        return
    for call in calls:
        kind = {"get_weather": Weather, "Person": Person}[call.function.name]
        kind.model_validate_json(call.function.arguments)
    if choice is NAMED:
        assert [call.function.name for call in calls] == ["Person"]
    if not parallel:
        assert len(calls) == 1


def test_a_streamed_call_has_its_name_once_and_its_arguments_in_pieces(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model=MODEL, messages=ASK, tools=TOOLS, tool_choice=NAMED, stream=True)
    chunks = [chunk.choices[0] for chunk in stream]
    calls = [call for choice in chunks for call in choice.delta.tool_calls or ()]
    assert [call.function.name for call in calls if call.function.name] == ["Person"]
    assert [bool(call.id) for call in calls] == [True] + [False] * (len(calls) - 1)
    assert len(calls) > 2
    Person.model_validate_json("".join(call.function.arguments or "" for call in calls))
    assert chunks[-1].finish_reason in ("tool_calls", "stop")


def test_logprobs_and_several_answers(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=HELLO, n=3, temperature=1, seed=5, max_tokens=8, logprobs=True, top_logprobs=2
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    for choice in answer.choices:
        drawn = bytes(byte for entry in choice.logprobs.content for byte in entry.bytes).decode()
        assert drawn.startswith(choice.message.content)
        for entry in choice.logprobs.content:
            assert entry.logprob <= 0
            assert len(entry.top_logprobs) == 2
            assert entry.top_logprobs[0].logprob >= entry.top_logprobs[1].logprob


def test_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=MODEL, prompt=["Once upon", "The cat"], n=2, max_tokens=4, echo=True, logprobs=2
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.choices[0].text.startswith("Once upon")
    assert answer.choices[3].text.startswith("The cat")
    assert answer.choices[0].logprobs.token_logprobs[0] is None
    assert "".join(answer.choices[0].logprobs.tokens) == answer.choices[0].text
    asked = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 12, "temperature": 0}
    pieces = [chunk.choices[0].text for chunk in client.completions.create(**asked, stream=True)]
    assert "".join(pieces) == client.completions.create(**asked).choices[0].text
    ids = client.completions.create(model=MODEL, prompt=[5, 6, 7], max_tokens=1)
    assert ids.usage.prompt_tokens == 3


def test_errors_are_of_the_right_class(client: openai.OpenAI) -> None:
    asked = {"model": MODEL, "messages": HELLO}
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(**asked, temperature=-1)
    assert (bad.value.param, bad.value.type) == ("temperature", "invalid_request_error")
    with pytest.raises(openai.BadRequestError) as unknown:
        client.chat.completions.create(**asked, extra_body={"temprature": 1})
    assert "Did you mean temperature?" in unknown.value.message
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "cat " * 5000}])
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):  # there is no such API here; clients that ask for it by default are told
        client.responses.create(model=MODEL, input="Hello!")
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="sk-wrong").chat.completions.create(**asked)
    with pytest.raises(openai.RateLimitError) as late:
        client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "cat " * 1500}],
            extra_headers={"x-quire-deadline-ms": "1"},
        )
    assert late.value.code == "deadline_exceeded"
    assert int(late.value.response.headers["retry-after"]) >= 1
    with pytest.raises(openai.BadRequestError) as hollow:
        client.chat.completions.create(**asked, tools=TOOLS, tool_choice={**NAMED, "function": {"name": "x"}})
    assert hollow.value.param == "tool_choice"


def test_raw_and_streaming_responses(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO, max_tokens=4)
    assert raw.status_code == 200
    assert raw.headers["x-request-id"] == raw.parse()._request_id
    assert raw.parse().choices[0].message.content
    with client.chat.completions.with_streaming_response.create(
        model=MODEL, messages=HELLO, max_tokens=4, stream=True
    ) as response:
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"


def test_many_at_once_asynchronously() -> None:
    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=60) as client:

            async def one(number: int) -> str:
                asked = {"model": MODEL, "messages": HELLO, "temperature": 0, "max_tokens": 20}
                if number % 2:
                    stream = await client.chat.completions.create(**asked, stream=True)
                    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
                return (await client.chat.completions.create(**asked)).choices[0].message.content

            parsed = client.chat.completions.parse(model=MODEL, messages=ASK, response_format=Person)
            *texts, answer = await asyncio.gather(*[one(number) for number in range(16)], parsed)
            assert isinstance(answer.choices[0].message.parsed, Person)
            return texts

    assert len(set(asyncio.run(ask()))) == 1


def test_a_stream_that_is_left_early(client: openai.OpenAI) -> None:
    stream = client.completions.create(
        model=MODEL, prompt="a", stream=True, max_tokens=4000, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    stream.close()
    assert client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=2).choices
