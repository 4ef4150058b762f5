"""POST /v1/chat/completions over ASGI: shapes, ends, usage, logprobs; the stream and the whole say the same."""

from __future__ import annotations

from typing import Any

import pytest
from served import EOS, TEXT, TOKENIZER, Served, says_ids, served


def told(events: list[Any]) -> dict[int, dict[str, Any]]:
    """Choices put together from events, by a reading of their own."""
    assert events[-1] == "[DONE]"
    choices: dict[int, dict[str, Any]] = {}
    for event in events[:-1]:
        assert event["object"] == "chat.completion.chunk"
        for each in event["choices"]:
            if each["index"] not in choices:
                assert each["delta"] == {"role": "assistant", "content": ""}
                choices[each["index"]] = {"content": "", "logprobs": [], "finish_reason": None}
            choice = choices[each["index"]]
            assert choice["finish_reason"] is None, "news after the end"
            choice["content"] += each["delta"].get("content", "")
            choice["logprobs"] += (each["logprobs"] or {"content": []})["content"]
            choice["finish_reason"] = each["finish_reason"]
    return choices


def test_a_whole_answer(talker: Served) -> None:
    answer = talker.chat(model="bundled")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body["id"].startswith("chatcmpl-")
    assert (body["object"], body["model"], body["created"]) == ("chat.completion", "bundled", 1_700_000_000)
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": TEXT, "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    num_output = len(TOKENIZER.encode(TEXT, add_special_tokens=False)) + 1  # the end token counts
    usage = body["usage"]
    assert usage["completion_tokens"] == num_output
    assert usage["total_tokens"] == usage["prompt_tokens"] + num_output
    assert usage["prompt_tokens_details"] == {"cached_tokens": usage["prompt_tokens_details"]["cached_tokens"]}


def test_a_stream_ends_with_usage_where_asked_for(talker: Served) -> None:
    answer = talker.chat(stream=True, stream_options={"include_usage": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.events()
    assert told(events)[0]["content"] == TEXT
    *others, last = events[:-1]
    assert all(event["usage"] is None for event in others)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == len(TOKENIZER.encode(TEXT, add_special_tokens=False)) + 1
    assert {event["id"] for event in events[:-1]} == {last["id"]}
    assert all("usage" not in event for event in talker.chat(stream=True).events()[:-1])


def test_continuous_usage_grows(talker: Served) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    counts = [e["usage"]["completion_tokens"] for e in talker.chat(stream=True, stream_options=options).events()[:-1]]
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"n": 3, "temperature": 1.2, "seed": 5},
        {"logprobs": True, "top_logprobs": 1, "max_tokens": 9},
        {"stop": ["e", "a"], "n": 2, "seed": 1, "logprobs": True},
        {"max_completion_tokens": 1},
        {"return_token_ids": True, "n": 2, "seed": 3, "max_tokens": 4},
    ],
)
def test_the_stream_folded_is_the_whole_answer(rambler: Served, extra: dict[str, Any]) -> None:
    body = {"max_tokens": 40, "temperature": 0, **extra}
    whole = rambler.chat(**body).json()
    streamed = told(rambler.chat(stream=True, **body).events())
    assert len(whole["choices"]) == body.get("n", 1)
    for choice in whole["choices"]:
        other = streamed[choice["index"]]
        assert other["content"] == choice["message"]["content"]
        assert other["finish_reason"] == choice["finish_reason"]
        assert other["logprobs"] == (choice["logprobs"] or {"content": []})["content"]


def test_max_tokens_ends_with_length(talker: Served) -> None:
    choice = talker.chat(max_tokens=3).json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert TEXT.startswith(choice["message"]["content"])


def test_without_max_tokens_the_answer_may_fill_the_context() -> None:
    with served(says_ids([TOKENIZER.encode("a", add_special_tokens=False)[0]], end=False)) as server:
        usage = server.chat().json()["usage"]
    assert usage["total_tokens"] == server.plan.max_model_len


@pytest.mark.parametrize("include", [False, True])
def test_a_stop_string_ends_the_text_and_the_work(include: bool) -> None:
    ids = TOKENIZER.encode("one two three STOP four five", add_special_tokens=False)
    with served(says_ids(ids, end=False)) as server:
        server.runner.pace_s = 0.002  # without it the fake model is done before it can be stopped
        body = {"stop": "STOP", "max_tokens": 400, "include_stop_str_in_output": include, "logprobs": True}
        answer = server.chat(**body).json()
        choice = answer["choices"][0]
        assert choice["message"]["content"] == "one two three " + ("STOP" if include else "")
        assert choice["finish_reason"] == "stop"
        assert answer["usage"]["completion_tokens"] == len(choice["logprobs"]["content"]) < len(ids)
        server.chat(max_tokens=1)  # a step later ...
        assert server.is_idle()  # ... nothing of it is left
        assert server.runner.num_steps < 100


def test_a_stop_string_is_never_half_sent() -> None:
    ids = TOKENIZER.encode("wait STOX and STOP now", add_special_tokens=False)
    with served(says_ids(ids, end=False)) as server:
        events = server.chat(stream=True, stop=["STOP"], max_tokens=100).events()
    sent = ""
    for event in events[:-1]:
        sent += event["choices"][0]["delta"].get("content", "")
        assert "wait STOX and ".startswith(sent)


def test_min_tokens_holds_off_stop_strings() -> None:
    ids = TOKENIZER.encode("a", add_special_tokens=False) * 8
    with served(says_ids(ids, end=False)) as server:
        answer = server.chat(stop=["a"], min_tokens=5, max_tokens=30).json()
    assert answer["usage"]["completion_tokens"] == 6


def test_logprobs_list_the_end_token_and_spell_bytes() -> None:
    ids = TOKENIZER.encode("né 🦊", add_special_tokens=False)
    with served(says_ids(ids)) as server:
        answer = server.chat(logprobs=True, top_logprobs=1).json()
    entries = answer["choices"][0]["logprobs"]["content"]
    assert len(entries) == answer["usage"]["completion_tokens"] == len(ids) + 1
    assert bytes(byte for entry in entries[:-1] for byte in entry["bytes"]).decode() == "né 🦊"
    assert entries[-1]["token"] == TOKENIZER.token_text(EOS)
    assert all(entry["top_logprobs"][0]["logprob"] == entry["logprob"] for entry in entries)
    assert answer["choices"][0]["message"]["content"] == "né 🦊"


def test_a_stream_never_splits_a_character() -> None:
    text = "Ωmega 🦊🏽 日本語 naïve e\u0301"
    with served(says_ids(TOKENIZER.encode(text, add_special_tokens=False))) as server:
        events = server.chat(stream=True).events()
    parts = [event["choices"][0]["delta"].get("content", "") for event in events[:-1]]
    assert "".join(parts) == text
    assert all("\ufffd" not in part for part in parts)


def test_line_separators_do_not_break_events() -> None:
    text = "a\u2028b\u2029c\u0085d\r\ne"
    with served(says_ids(TOKENIZER.encode(text, add_special_tokens=False))) as server:
        answer = server.chat(stream=True)
    assert all(line == "" or line.startswith("data: ") for line in answer.body.decode().splitlines())
    assert told(answer.events())[0]["content"] == text


def test_token_ids_are_told_where_asked_for(talker: Served) -> None:
    answer = talker.chat(return_token_ids=True).json()
    assert answer["choices"][0]["token_ids"] == [*TOKENIZER.encode(TEXT, add_special_tokens=False), EOS]
    assert len(answer["prompt_token_ids"]) == answer["usage"]["prompt_tokens"]
    first = talker.chat(return_token_ids=True, stream=True).events()[0]
    assert first["prompt_token_ids"] == answer["prompt_token_ids"]


def test_a_seed_fixes_the_answer_and_its_absence_does_not(rambler: Served) -> None:
    def text(**body: Any) -> str:
        return rambler.chat(max_tokens=12, temperature=1, **body).json()["choices"][0]["message"]["content"]

    assert text(seed=7) == text(seed=7)
    assert text(seed=7) != text(seed=8)
    assert text() != text()


def test_cached_tokens_are_told(rambler: Served) -> None:
    body = {"messages": [{"role": "user", "content": "the same long prefix " * 12}], "max_tokens": 2}
    rambler.post("/v1/chat/completions", body)
    usage = rambler.post("/v1/chat/completions", body).json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] >= 16
    salted = rambler.post("/v1/chat/completions", {**body, "cache_salt": "mine"}).json()["usage"]
    assert salted["prompt_tokens_details"]["cached_tokens"] == 0


def test_a_final_message_can_be_continued(talker: Served) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Once there"}]
    body = {"messages": messages, "continue_final_message": True, "add_generation_prompt": False}
    answer = talker.post("/v1/chat/completions", {**body, "return_token_ids": True}).json()
    assert TOKENIZER.decode(answer["prompt_token_ids"]).endswith("Once there")


def test_parts_tools_calls_and_nulls_reach_the_template(talker: Served) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "it"}'}}
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "One"}, {"type": "text", "text": "Two"}], "name": None},
        {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None, "annotations": []},
        {"role": "tool", "tool_call_id": "c1", "content": "A fox"},
    ]
    answer = talker.post("/v1/chat/completions", {"messages": messages, "return_token_ids": True})
    prompt = TOKENIZER.decode(answer.json()["prompt_token_ids"])
    assert all(part in prompt for part in ("Be brief.", "One", "Two", '"name": "look"', '{"at": "it"}', "A fox"))
