"""/v1/models, /tokenize, /detokenize, /health, /metrics, /version; request ids; the one log line."""

from __future__ import annotations

import io
import logging
from typing import Any

import pytest
from served import MAX_MODEL_LEN, TOKENIZER, Served, served

from quire.observe import log
from quire.server.app import ROUTES


def test_models(rambler: Served) -> None:
    listed = rambler.get("/v1/models").json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["bundled", "org/other-name"]
    assert listed["data"][0] == {
        "id": "bundled",
        "object": "model",
        "created": 1_600_000_000,
        "owned_by": "quire",
        "root": "bundled",
        "parent": None,
        "max_model_len": MAX_MODEL_LEN,
    }
    assert rambler.get("/v1/models/org/other-name").json()["id"] == "org/other-name"
    assert rambler.get("/v1/models/default").json()["id"] == "bundled"


def test_answers_carry_the_name_that_was_asked_for(rambler: Served) -> None:
    for asked, told in (("org/other-name", "org/other-name"), ("default", "bundled"), (None, "bundled")):
        assert rambler.complete(model=asked, max_tokens=1).json()["model"] == told


def test_tokenize(rambler: Served) -> None:
    body = {"prompt": "Hello fox", "return_token_strs": True, "model": "default"}
    answer = rambler.post("/tokenize", body).json()
    assert answer["tokens"] == TOKENIZER.encode("Hello fox")
    assert "".join(answer["token_strs"]) == "Hello fox"
    messages = [{"role": "user", "content": "Hi"}]
    chat = rambler.post("/tokenize", {"messages": messages}).json()
    prompt = rambler.chat(return_token_ids=True, max_tokens=1).json()["prompt_token_ids"]
    assert chat["tokens"] == prompt
    bare = rambler.post("/tokenize", {"messages": messages, "add_generation_prompt": False}).json()
    assert prompt[: len(bare["tokens"])] == bare["tokens"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": 5}, "prompt"),
        ("/tokenize", {"prompt": "x", "messages": []}, "prompt"),
        ("/tokenize", {"prompt": "x", "add_special_token": True}, "add_special_token"),
        ("/tokenize", {"prompt": "x", "model": "gpt-4"}, "model"),
        ("/detokenize", {"tokens": "x"}, "tokens"),
        ("/detokenize", {"tokens": [1.5]}, "tokens[0]"),
        ("/detokenize", {"tokens": [4096]}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
    ],
)
def test_their_bad_bodies(rambler: Served, path: str, body: dict[str, Any], param: str) -> None:
    answer = rambler.post(path, body)
    assert answer.status in (400, 404)
    assert answer.error["param"] == param


def test_long_text_is_encoded_beside_the_loop(rambler: Served) -> None:
    text = "the small fox " * 20_000
    assert rambler.post("/tokenize", {"prompt": text}).json()["tokens"] == TOKENIZER.encode(text)
    assert "".join(rambler.post("/tokenize", {"prompt": text, "return_token_strs": True}).json()["token_strs"]) == text
    answer = rambler.post("/v1/chat/completions", {"messages": [{"role": "user", "content": text}]})
    assert answer.error["code"] == "context_length_exceeded"
    many = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}] * 2000
    answer = rambler.post("/v1/chat/completions", {"messages": many})
    assert answer.error["code"] == "context_length_exceeded"


def test_version_and_health(rambler: Served) -> None:
    assert rambler.get("/version").json() == {"version": "0.0.0"}
    for path in ("/health", "/livez", "/readyz", "/startupz"):
        assert rambler.get(path).json() == {"status": "ok"}
    assert rambler.call("HEAD", "/health", b"", {}).status == 200


def test_a_closed_engine_is_not_healthy() -> None:
    with served() as server:
        server.do(server.client.close())
        statuses = {path: server.get(path).status for path in ("/health", "/readyz", "/livez", "/startupz")}
        assert statuses == {"/health": 503, "/readyz": 503, "/livez": 200, "/startupz": 200}
        assert server.complete().status == 503


def test_metrics_count_what_happened() -> None:
    with served() as server:
        server.complete(prompt=[5] * 40, max_tokens=5, ignore_eos=True)
        server.complete(temperature=9)
        server.get("/nowhere")
        text = server.get("/metrics").body.decode()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values["quire_generation_tokens_total"]) == 5
    assert float(values["quire_prompt_tokens_total"]) == 40
    assert float(values["quire_num_requests_running"]) == 0
    assert float(values['quire_http_requests_total{route="/v1/completions",status="200"}']) == 1
    assert float(values['quire_http_requests_total{route="/v1/completions",status="400"}']) == 1
    assert float(values['quire_http_requests_total{route="other",status="404"}']) == 1
    assert float(values['quire_request_success_total{finished_reason="length"}']) == 1
    assert float(values["quire_time_to_first_token_seconds_count"]) == 1
    assert float(values["quire_inter_token_latency_seconds_count"]) == 4
    assert float(values['quire_front_open{kind="requests"}']) == 0
    assert float(values['quire_front_open{kind="streams"}']) == 0
    assert float(values['quire_front_open{kind="tasks"}']) >= 1
    assert float(values['quire_front_open{kind="descriptors"}']) >= 3
    assert float(values["quire_e2e_request_latency_seconds_count"]) == 1
    blocks = sum(float(values[f'quire_kv_blocks{{state="{state}"}}']) for state in ("used", "cached", "free"))
    assert blocks == server.plan.num_blocks


@pytest.mark.parametrize("given", ["abc-123", "A" * 128, "trace:1.2_3"])
def test_a_plain_request_id_comes_back(rambler: Served, given: str) -> None:
    assert rambler.get("/version", x_request_id=given).headers["x-request-id"] == given
    assert rambler.get("/nowhere", x_request_id=given).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "A" * 129, "a b", "a\r\nset-cookie: x", "é", 'a"b', "<script>"])
def test_other_request_ids_are_replaced(rambler: Served, given: str) -> None:
    fresh = rambler.get("/version", x_request_id=given).headers["x-request-id"]
    assert len(fresh) == 32
    assert fresh.isalnum()


@pytest.fixture
def lines() -> io.StringIO:
    stream = io.StringIO()
    before = [(name, logging.getLogger(name)) for name in ("quire", *log.FOREIGN)]
    kept = [(logger, logger.handlers, logger.level, logger.propagate) for _, logger in before]
    log.set_up("info", stream)
    yield stream
    for logger, handlers, level, propagate in kept:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_one_line_a_request_and_no_word_of_a_prompt(rambler: Served, lines: io.StringIO) -> None:
    secret = "sesame"
    rambler.call("POST", "/v1/completions", b'{"prompt": "sesame", "max_tokens": 3, "ignore_eos": true}',
                 {"content-type": "application/json", "x-request-id": "my-id"})  # fmt: skip
    rambler.chat(messages=[{"role": "user", "content": secret}], temperature="x")
    rambler.post("/v1/completions", {"prompt": secret, secret: 1})
    rambler.get(f"/{secret}")
    rambler.get("/health")
    first, *others = lines.getvalue().splitlines()
    assert len(others) == 3
    assert secret not in lines.getvalue()
    words = dict(word.split("=") for word in first.split() if "=" in word)
    assert words.pop("ttft_s") <= words.pop("total_s")
    assert words == {
        "id": "my-id",
        "method": "POST",
        "route": "/v1/completions",
        "status": "200",
        "model": "bundled",
        "prompt_tokens": "1" if len(TOKENIZER.encode(secret)) == 1 else str(len(TOKENIZER.encode(secret))),
        "output_tokens": "3",
        "finish": "length",
    }
    assert "status=400" in others[0]


def test_routes_are_the_documented_ones() -> None:
    assert [(method, path) for path, method, _ in ROUTES] == [
        ("GET", "/v1/models"),
        ("GET", "/v1/models/{id:path}"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/chat/completions/render"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/completions/render"),
        ("POST", "/tokenize"),
        ("POST", "/detokenize"),
        ("GET", "/health"),
        ("GET", "/livez"),
        ("GET", "/readyz"),
        ("GET", "/startupz"),
        ("GET", "/metrics"),
        ("GET", "/version"),
        ("GET", "/receipt"),
    ]
