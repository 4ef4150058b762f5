"""Bad input: a 400 in OpenAI's shape with the field's name, and the engine never sees it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from served import MAX_MODEL_LEN, Served, served

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HI = [{"role": "user", "content": "Hi"}]
UNSUPPORTED, UNKNOWN = "unsupported_field", "unknown_field"


def refused(answer: Any, param: str | None, code: str | None = None, status: int = 400) -> dict[str, Any]:
    error = answer.error
    assert answer.status == status, error
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param, error
    if code is not None:
        assert error["code"] == code
    assert answer.headers["content-type"] == "application/json"
    assert len(answer.headers["x-request-id"]) == 32
    return error


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 2.1), ("temperature", -0.1), ("temperature", "1"), ("temperature", True),
        ("temperature", float("nan")), ("temperature", float("inf")), ("temperature", 10**400), ("temperature", []),
        ("top_p", 0), ("top_p", 1.5), ("top_k", -2), ("top_k", 1.5), ("top_k", 2**40), ("min_p", -1), ("min_p", 2),
        ("presence_penalty", 3), ("frequency_penalty", -3), ("repetition_penalty", 0), ("repetition_penalty", 11),
        ("n", 0), ("n", True), ("n", 1.5), ("n", "2"), ("n", 129), ("n", 17),
        ("max_tokens", 0), ("max_tokens", -1), ("max_tokens", 2.5), ("min_tokens", -1), ("max_tokens", 10**30),
        ("seed", 2**63), ("seed", 1.5), ("seed", "1"),
        ("stop", ""), ("stop", 5), ("stop", [5]), ("stop", ["a"] * 17), ("stop", "x" * 1025), ("stop", [["a"]]),
        ("stop_token_ids", [-1]), ("stop_token_ids", [99999]), ("stop_token_ids", 5),
        ("logit_bias", {"x": 1}), ("logit_bias", {"99999": 1}), ("logit_bias", []), ("logit_bias", {"-1": 1}),
        ("stream", "yes"), ("stream", 1), ("ignore_eos", 1), ("model", 5), ("cache_salt", ""),
        ("cache_salt", "x" * 300),
        ("stream_options", {"include_usage": True}), ("logit_bias", {"5": 101}),
        ("user", 5), ("user", "x" * 1025), ("priority", 101), ("priority", -101), ("priority", "1"), ("priority", 0.5),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_values_out_of_type_or_range(rambler: Served, path: str, field: str, value: Any) -> None:
    before = rambler.runner.num_steps
    body = {"messages": HI} if path == CHAT else {"prompt": "Hi"}
    error = refused(rambler.post(path, {**body, field: value}), field)
    assert error["type"] == "invalid_request_error"
    assert rambler.runner.num_steps == before


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": ["Hi"]}, "messages[0]"),
        ({"messages": [{}]}, "messages[0].role"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [*HI, {"role": "user", "content": 5}]}, "messages[1].content"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": "x", "nmae": "y"}]}, "messages[0].nmae"),
        ({"messages": [{"role": "user", "content": "x", "name": 5}]}, "messages[0].name"),
        ({"messages": [{"role": "assistant", "tool_calls": 5}]}, "messages[0].tool_calls"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": 5}}]}]},
            "messages[0].tool_calls[0].function.name",
        ),
        ({"messages": HI, "max_completion_tokens": 0}, "max_completion_tokens"),
        ({"messages": HI, "top_logprobs": 3}, "top_logprobs"),
        ({"messages": HI, "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"messages": HI, "logprobs": 3}, "logprobs"),
        ({"messages": HI, "max_tokens": 5, "min_tokens": 6}, "min_tokens"),
        ({"messages": HI, "chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
        ({"messages": HI, "chat_template_kwargs": 5}, "chat_template_kwargs"),
        ({"messages": HI, "continue_final_message": True}, "continue_final_message"),
        ({"messages": HI, "stream": True, "stream_options": {"include_use": True}}, "stream_options.include_use"),
        ({"messages": HI, "stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ],
)
def test_chat_bodies(rambler: Served, body: dict[str, Any], param: str) -> None:
    refused(rambler.post(CHAT, body), param)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": [5, "x"]}, "prompt"),
        ({"prompt": [[5], "x"]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": [1.5]}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [4096]}, "prompt"),
        ({"prompt": [[5], [2**70]]}, "prompt"),
        ({"prompt": ["x"] * 257}, "prompt"),
        ({"prompt": ["x"] * 256, "n": 5}, "n"),
        ({"prompt": "x", "logprobs": 21}, "logprobs"),
        ({"prompt": "x", "logprobs": True}, "logprobs"),
        ({"prompt": "x", "best_of": 0}, "best_of"),
        ({"prompt": "x", "best_of": 2, "n": 3}, "best_of"),
        ({"prompt": "x", "best_of": 2, "stream": True}, "stream"),
        ({"prompt": "x", "best_of": 99}, "best_of"),
        ({"prompt": "x", "echo": 1}, "echo"),
    ],
)
def test_completion_bodies(rambler: Served, body: dict[str, Any], param: str) -> None:
    refused(rambler.post(COMPLETIONS, body), param)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_a_text_that_cannot_fit_is_refused_unread(rambler: Served, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "word " * 300_000
    body = {"messages": [{"role": "user", "content": text}]} if path == CHAT else {"prompt": text}
    cut = rambler.post(path, {**body, "truncate_prompt_tokens": 5, "max_tokens": 1})
    assert cut.json()["usage"]["prompt_tokens"] == 5
    monkeypatch.setattr(rambler.service.tokenizer, "encode", None)
    error = refused(rambler.post(path, body), "messages" if path == CHAT else "prompt", "context_length_exceeded")
    assert "at least" in error["message"]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_prompts_over_the_context_say_both_counts(rambler: Served, path: str) -> None:
    words = "word " * MAX_MODEL_LEN
    body = {"messages": [{"role": "user", "content": words}]} if path == CHAT else {"prompt": words}
    error = refused(rambler.post(path, body), "messages" if path == CHAT else "prompt", "context_length_exceeded")
    assert f"allowed: {MAX_MODEL_LEN} tokens" in error["message"]
    assert "prompt tokens" in error["message"]
    short = {"messages": HI} if path == CHAT else {"prompt": "Hi"}
    error = refused(rambler.post(path, {**short, "max_tokens": MAX_MODEL_LEN}), "max_tokens", "context_length_exceeded")
    assert f"max_tokens={MAX_MODEL_LEN}" in error["message"]
    refused(rambler.post(COMPLETIONS, {"prompt": [7] * MAX_MODEL_LEN}), "prompt", "context_length_exceeded")


HARMLESS = [
    {"user": "u"}, {"metadata": {"a": "b"}}, {"store": False}, {"service_tier": "auto"}, {"service_tier": "default"},
    {"response_format": {"type": "text"}}, {"stop": None}, {"seed": None}, {"n": None}, {"logit_bias": None},
    {"logit_bias": {}}, {"presence_penalty": 0}, {"frequency_penalty": 0.0}, {"top_p": 1}, {"temperature": 1},
    {"stream": False}, {"stream_options": None}, {"prompt_cache_key": "k"}, {"safety_identifier": "s"},
    {"bad_words": []}, {"allowed_token_ids": None}, {"repetition_detection": None}, {"repetition_detection": {}},
    {"truncate_prompt_tokens": -1}, {"spaces_between_special_tokens": False}, {"session_id": "s"},
    {"truncation_side": "left"}, {"detokenize": True}, {"stream_interval": 1}, {"logits_processors": []},
    {"stop": []}, {"use_beam_search": False}, {"length_penalty": 1}, {"guided_json": None}, {"prompt_logprobs": None},
]  # fmt: skip
CHAT_HARMLESS = [
    {"tools": []}, {"tool_choice": "none"}, {"tool_choice": "auto"}, {"functions": []}, {"function_call": "none"},
    {"parallel_tool_calls": True}, {"prediction": None}, {"modalities": ["text"]}, {"audio": None},
    {"reasoning_effort": None}, {"verbosity": "medium"}, {"web_search_options": None}, {"logprobs": False},
    {"top_logprobs": 0}, {"logprobs": None}, {"tools": None, "tool_choice": None}, {"max_tokens": None},
    {"chat_template_kwargs": {"enable_thinking": False}}, {"add_generation_prompt": True}, {"moderation": None},
]  # fmt: skip


@pytest.mark.parametrize("fields", HARMLESS, ids=json.dumps)
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_fields_that_ask_for_nothing_are_accepted(rambler: Served, path: str, fields: dict[str, Any]) -> None:
    body = {"messages": HI, "max_tokens": 1} if path == CHAT else {"prompt": "Hi", "max_tokens": 1}
    assert rambler.post(path, {**body, **fields}).status == 200


@pytest.mark.parametrize("fields", CHAT_HARMLESS, ids=json.dumps)
def test_chat_fields_that_ask_for_nothing_are_accepted(rambler: Served, fields: dict[str, Any]) -> None:
    assert rambler.post(CHAT, {"messages": HI, "max_completion_tokens": 1, **fields}).status == 200


@pytest.mark.parametrize("fields", [{"suffix": ""}, {"best_of": 1}, {"echo": False}, {"best_of": 2, "n": 2}])
def test_completion_fields_that_ask_for_nothing_are_accepted(rambler: Served, fields: dict[str, Any]) -> None:
    assert rambler.complete(max_tokens=1, **fields).status == 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("functions", [{"name": "f"}]), ("function_call", {"name": "f"}),
        ("modalities", ["text", "audio"]), ("audio", {"voice": "x"}),
        ("logits_processors", ["x"]), ("reasoning_effort", "high"),
        ("web_search_options", {}), ("verbosity", "low"), ("store", True),
        ("chat_template", "{{ 1 }}"), ("best_of", 2), ("moderation", {"model": "x"}), ("store", 0),
        ("truncation_side", "right"), ("detokenize", False), ("logprob_token_ids", [5]), ("stream_interval", 4),
        ("watermarking", True), ("return_prompt_text", True), ("skip_reading_prefix_cache", True),
    ],
)  # fmt: skip
def test_fields_that_would_change_the_output_are_refused(rambler: Served, field: str, value: Any) -> None:
    refused(rambler.post(CHAT, {"messages": HI, field: value}), field, UNSUPPORTED)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"bad_words": "word"}, "bad_words"),
        ({"bad_words": [5]}, "bad_words[0]"),
        ({"bad_words": [""]}, "bad_words"),
        ({"allowed_token_ids": []}, "allowed_token_ids"),
        ({"allowed_token_ids": [4096]}, "allowed_token_ids"),
        ({"allowed_token_ids": [True]}, "allowed_token_ids[0]"),
        ({"repetition_detection": {"max_pattern_size": 3}}, "repetition_detection.min_count"),
        ({"repetition_detection": {"max_pattern_size": 3.5}}, "repetition_detection.max_pattern_size"),
        ({"repetition_detection": {"max_pattern": 3}}, "repetition_detection.max_pattern"),
        ({"repetition_detection": 3}, "repetition_detection"),
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
        ({"allowed_token_ids": [5], "guided_regex": "a"}, "allowed_token_ids"),
    ],
)
def test_what_may_be_drawn_is_refused_by_name(rambler: Served, fields: dict[str, Any], param: str) -> None:
    refused(rambler.complete(**fields), param)
    refused(rambler.chat(**fields), param)


def test_unknown_fields_name_the_nearest(rambler: Served) -> None:
    assert "Did you mean temperature?" in refused(rambler.chat(temprature=1), "temprature", UNKNOWN)["message"]
    assert "Did you mean max_tokens?" in refused(rambler.complete(max_token=1), "max_token", UNKNOWN)["message"]
    refused(rambler.chat(**{"x" * 10_000: 1}), "x" * 64 + "…", UNKNOWN)


def test_unknown_fields_may_be_ignored_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with served(unknown_fields="warn") as server:
        assert server.chat(temprature=1, max_tokens=1).status == 200
        refused(server.chat(functions=[{}]), "functions", UNSUPPORTED)
        refused(server.chat(temperature=3), "temperature")
    assert any(getattr(record, "fields", {}).get("field") == "temprature" for record in caplog.records)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"5", b'"x"', b"null", b"{'a': 1}", b'{"a": 1,}', b"\xff\xfe{\x00}\x00", b'{"a": "\xff"}',
        b'\xef\xbb\xbf{"prompt": "x"}', b'{"prompt": "x"} {}', b'{"prompt": "\x01"}', b'{"n": 0x10}', b'{"n": +1}',
        b'{"prompt": "x", "n": ' + b"1" * 5000 + b"}", b"[" * 100_000, b'{"a":' * 100_000,
        b'{"user": ' + b"[" * 90 + b"]" * 90 + b"}",
    ],
    ids=lambda body: repr(body[:24]),
)  # fmt: skip
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, "/tokenize", "/detokenize"])
def test_bodies_that_are_no_json_object(rambler: Served, path: str, body: bytes) -> None:
    answer = rambler.post(path, body)
    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"prompt": "\\ud800"}', "prompt"),
        (b'{"prompt": ["a", "b\\udc00"]}', "prompt[1]"),
        (b'{"prompt": "x", "user": {"a": "\\uDBFF"}}', "user.a"),
        (b'{"prompt": "x", "prompt": "y"}', "prompt"),
        (b'{"prompt": "x", "temperature": NaN}', "temperature"),
        (b'{"prompt": "x", "temperature": 1e999}', "temperature"),
        (b'{"prompt": "x", "logit_bias": {"5": -Infinity}}', "logit_bias.5"),
    ],
)
def test_json_faults_name_their_field(rambler: Served, body: bytes, param: str) -> None:
    refused(rambler.post(COMPLETIONS, body), param)


def test_surrogates_in_messages_and_pairs(rambler: Served) -> None:
    body = b'{"messages": [{"role": "user", "content": "\\ud83e"}]}'
    refused(rambler.post(CHAT, body), "messages[0].content")
    pair = b'{"max_tokens": 1, "messages": [{"role": "user", "content": "\\ud83e\\udd8a"}]}'
    assert rambler.post(CHAT, pair).status == 200


@pytest.mark.parametrize("kind", ["text/plain", "", "application/x-www-form-urlencoded"])
def test_a_body_must_say_that_it_is_json(rambler: Served, kind: str) -> None:
    answer = rambler.call("POST", COMPLETIONS, b'{"prompt": "x"}', {"content-type": kind} if kind else {})
    refused(answer, "content-type")


def test_models_routes_and_methods_that_do_not_exist(rambler: Served) -> None:
    refused(rambler.chat(model="gpt-4"), "model", "model_not_found", 404)
    refused(rambler.get("/v1/models/gpt-4"), "model", "model_not_found", 404)
    refused(rambler.get("/v1/nothing"), None, "not_found", 404)
    refused(rambler.get("/docs"), None, "not_found", 404)
    refused(rambler.get("/openapi.json"), None, "not_found", 404)
    refused(rambler.get("/v1/models/"), "model", "model_not_found", 404)
    answer = rambler.get(CHAT)
    refused(answer, None, "method_not_allowed", 405)
    assert answer.headers["allow"] == "POST"


def test_nothing_was_left_behind(rambler: Served) -> None:
    rambler.complete(max_tokens=1)
    assert rambler.is_idle()
    assert rambler.engine.scheduler.cache_use().num_used == 0
