"""Payloads of advisories: numbers, ids and names that a request carries.

Knows: requests, as steps of bytes. Does not know: what is right, who sends them.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable

from chaos.http_text import (
    CHAT,
    COMPLETIONS,
    Raw,
    get,
    post,
)
from chaos.payload import Steps, chat, complete, each, long


def huge_n() -> Iterable[Steps]:
    return each("n", (10**6, 2**31, 10**30, 0, -1))


def huge_best_of() -> Iterable[Steps]:
    return [complete(best_of=value, n=1) for value in (10**6, 2**63, -1, 0)]


def huge_beams() -> Iterable[Steps]:
    return each("n", ()) + [complete(use_beam_search=True, n=value, temperature=0) for value in (10**5, 10**9)]


def empty_prompts() -> Iterable[Steps]:
    found = [
        post(COMPLETIONS, {"prompt": value, "max_tokens": 2})
        for value in ("", [], [""], [[]], [[], []], None, ["", "a"])
    ]
    return [*found, post(CHAT, {"messages": [], "max_tokens": 2}), chat(messages=[{"role": "user", "content": ""}])]


def token_ids() -> Iterable[Steps]:
    ids: tuple[object, ...] = ([10**6], [-1], [2**31], [2**63], [5, 2**64], [[5], [10**9]], [1.5], [True], [None])
    found = [post(COMPLETIONS, {"prompt": value, "max_tokens": 2}) for value in ids]
    found += [post("/detokenize", {"tokens": value}) for value in ([10**6], [-1], [2**70], [0.5])]
    return [
        *found,
        complete(stop_token_ids=[10**9]),
        complete(allowed_token_ids=[-5]),
        complete(allowed_token_ids=[]),
    ]


def logit_biases() -> Iterable[Steps]:
    found = each(
        "logit_bias", ({"191222": -100}, {"-1": 5}, {"5": 1e30}, {"5": Raw("NaN")}, {"5": Raw("1e999")}, {"x": 1})
    )
    return [*found, complete(logit_bias={str(number): 1.0 for number in range(100_000)})]


def huge_logprobs() -> Iterable[Steps]:
    found = [complete(logprobs=value) for value in (10**9, 10**6, -1)]
    found += [chat(logprobs=True, top_logprobs=value) for value in (10**9, 2**64, -1)]
    return [*found, complete(prompt_logprobs=10**9), complete(prompt_logprobs=-2)]


def echoes() -> Iterable[Steps]:
    return [
        complete(echo=True, max_tokens=0, logprobs=1),
        complete(echo=True, max_tokens=0),
        complete(echo=True, logprobs=5),
        complete(prompt_logprobs=5, echo=True),
        complete(prompt="<s><|im_start|></s>", echo=True, logprobs=2),
    ]


def sampling_numbers() -> Iterable[Steps]:
    found: list[Steps] = []
    for name, values in {
        "temperature": (-1, Raw("NaN"), Raw("Infinity"), 1e308, "1"),
        "top_p": (0, -0.5, 1.5, Raw("NaN"), 10**400),
        "top_k": (-5, 2**63, 0.5, Raw("1e999")),
        "min_p": (-1, 2, Raw("NaN")),
        "repetition_penalty": (0, -1, 1e308, Raw("NaN")),
        "presence_penalty": (-100, 1e308),
        "frequency_penalty": (3, Raw("-Infinity")),
        "seed": (2**64, -(2**64), 1.5, "x"),
    }.items():
        found += [complete(**{name: value}) for value in values]
    return found


def lengths() -> Iterable[Steps]:
    found = [complete(max_tokens=value) for value in (-1, 10**9, 2**63, 10**400, 0.5, "5")]
    found += [complete(min_tokens=value) for value in (-1, 10**9, 5)]
    found += [complete(truncate_prompt_tokens=value) for value in (-5, 10**9)]
    return [
        *found,
        chat(max_completion_tokens=-3),
        complete(repetition_detection={"min_count": -1, "max_pattern_size": 10**9}),
    ]


def embeddings() -> Iterable[Steps]:
    pickle = base64.b64encode(
        b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94."
    ).decode()
    return [
        post(COMPLETIONS, {"prompt_embeds": value, "max_tokens": 1})
        for value in (pickle, [pickle], "A" * 10**5, [[0.1] * 64])
    ]


def code_fields() -> Iterable[Steps]:
    names = (
        "custom_logit_processor",
        "logits_processors",
        "custom_params",
        "lora_path",
        "extra_args",
        "vllm_xargs",
        "kv_transfer_params",
    )
    return [complete(**{name: "gASVCgAAAAAAAACMBXBvc2l4lC4="}) for name in names]


def media() -> Iterable[Steps]:
    pixel = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    parts: tuple[object, ...] = (
        {"type": "image_url", "image_url": {"url": pixel}},
        {"type": "image_url", "image_url": {"url": "data:video/jpeg;base64," + "AA,," * 5000}},
        {"type": "video_url", "video_url": {"url": pixel}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "image_embeds", "image_embeds": "AAAA"},
        {"type": "file", "file": {"file_id": "/etc/passwd"}},
        {"type": "text"},
        {"type": "refusal", "refusal": 5},
        {},
        5,
        None,
    )
    return [chat(messages=[{"role": "user", "content": [part]}]) for part in parts]


def fetches() -> Iterable[Steps]:
    urls = (
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1:22/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_x",
        "//x",
    )
    found: list[Steps] = [
        chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]) for url in urls
    ]
    return [
        *found,
        complete(guided_json={"$ref": urls[0]}),
        chat(web_search_options={}),
        chat(response_format={"type": urls[0]}),
    ]


def model_paths() -> Iterable[Steps]:
    names = (
        "../../etc/passwd",
        "/etc/passwd",
        "..\\..\\x",
        "sha256:../../x",
        "a" * 5000,
        "",
        "default\x00",
        "file:///x",
        "ＤＥＦＡＵＬＴ",
    )
    paths = ("/v1/models/../../etc/passwd", "/v1/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/v1/models/..%5c..%5cx")
    return [*[complete(model=name) for name in names], *[get(path) for path in paths]]


def adapters() -> Iterable[Steps]:
    return [
        complete(model="adapter:/tmp/x"),
        post("/v1/load_lora_adapter", {"lora_name": "x", "lora_path": "/tmp"}),
        complete(lora_request={"path": "/"}),
    ]


def many_prompts() -> Iterable[Steps]:
    return [
        post(COMPLETIONS, {"prompt": ["a"] * 100_000, "max_tokens": 1}),
        post(COMPLETIONS, {"prompt": [[5]] * 50_000, "max_tokens": 1}),
        post(COMPLETIONS, {"prompt": ["a"] * 1000, "n": 128, "max_tokens": 1}),
    ]


def stops() -> Iterable[Steps]:
    start = '{"prompt": "Once", "max_tokens": 2, "stop": ['
    return [
        long(COMPLETIONS, start, '"a",', 10**6, '"a"]}'),
        long(COMPLETIONS, start[:-1] + '"', "a", 10**6, '"}'),
        complete(stop=[str(number) for number in range(5000)]),
        chat(stop=["x" * 5000] * 4),
    ]


def id_lists() -> Iterable[Steps]:
    return [
        complete(bad_words=[f"word{number}" for number in range(20_000)]),
        complete(allowed_token_ids=list(range(2000)) * 100),
        complete(stop_token_ids=[5] * 100_000),
        complete(bad_words=["a" * 50_000]),
        complete(bad_words=[""]),
    ]
