"""POST /v1/completions over ASGI: prompts in four shapes, echo, logprobs; the stream and the whole say the same."""

from __future__ import annotations

from typing import Any

import pytest
from served import EOS, MAX_MODEL_LEN, TEXT, TOKENIZER, Served, says_ids, served


def joined(events: list[Any]) -> dict[int, dict[str, Any]]:
    assert events[-1] == "[DONE]"
    choices: dict[int, dict[str, Any]] = {}
    for event in events[:-1]:
        assert event["object"] == "text_completion"
        for each in event["choices"]:
            choice = choices.setdefault(each["index"], {"text": "", "logprobs": None, "finish_reason": None})
            assert choice["finish_reason"] is None, "news after the end"
            choice["text"] += each["text"]
            choice["finish_reason"] = each["finish_reason"]
            if each["logprobs"] is not None:
                before = choice["logprobs"] or {name: [] for name in each["logprobs"]}
                choice["logprobs"] = {name: before[name] + each["logprobs"][name] for name in before}
    return choices


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"prompt": ["One", "Two", "Three"], "n": 2, "temperature": 1, "seed": 3},
        {"echo": True},
        {"echo": True, "logprobs": 1, "n": 2, "temperature": 1, "seed": 9, "prompt": "A long prompt. " * 20},
        {"echo": True, "max_tokens": 0, "logprobs": 0},
        {"prompt": [[5, 6, 7], [8, 9]], "logprobs": 2},
        {"stop": ["e", "a"], "n": 2, "seed": 1, "logprobs": 0},
        {"return_token_ids": True, "n": 2, "prompt": ["a", "b"]},
        {"ignore_eos": True, "max_tokens": 60, "min_tokens": 3},
        {"return_tokens_as_token_ids": True, "logprobs": 1},
    ],
)
def test_the_stream_folded_is_the_whole_answer(rambler: Served, extra: dict[str, Any]) -> None:
    body = {"max_tokens": 20, "temperature": 0, **extra}
    whole = rambler.complete(**body).json()
    assert (whole["object"], whole["id"][:5]) == ("text_completion", "cmpl-")
    streamed = joined(rambler.complete(stream=True, **body).events())
    num_prompts = len(body["prompt"]) if isinstance(body.get("prompt"), list) else 1
    assert sorted(streamed) == list(range(num_prompts * body.get("n", 1)))
    for choice in whole["choices"]:
        assert {name: choice[name] for name in ("text", "logprobs", "finish_reason")} == streamed[choice["index"]]


def test_sixteen_tokens_are_the_default(rambler: Served) -> None:
    answer = rambler.complete(ignore_eos=True, temperature=0).json()
    assert answer["usage"]["completion_tokens"] == 16
    assert answer["choices"][0]["finish_reason"] == "length"


def test_prompts_of_all_shapes_mean_the_same(rambler: Served) -> None:
    ids = TOKENIZER.encode("Once upon")
    asked = [{"prompt": shape, "temperature": 0} for shape in ("Once upon", ["Once upon"], ids, [ids])]
    answers = [rambler.complete(**body).json() for body in asked]
    assert len({answer["choices"][0]["text"] for answer in answers}) == 1
    assert {answer["usage"]["prompt_tokens"] for answer in answers} == {len(ids)}


def test_echo_lists_the_prompt_with_null_first() -> None:
    with served(says_ids(TOKENIZER.encode(" there was", add_special_tokens=False))) as server:
        answer = server.complete(prompt="Once upon a time", echo=True, logprobs=1).json()
    choice = answer["choices"][0]
    logprobs = choice["logprobs"]
    assert choice["text"] == "Once upon a time there was"
    num_tokens = answer["usage"]["total_tokens"]
    assert {len(logprobs[name]) for name in logprobs} == {num_tokens}
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["top_logprobs"][0] is None
    assert None not in logprobs["token_logprobs"][1:]
    for token, offset in zip(logprobs["tokens"][:-1], logprobs["text_offset"], strict=False):
        assert choice["text"][offset : offset + len(token)] == token
    assert logprobs["text_offset"] == sorted(logprobs["text_offset"])
    assert logprobs["tokens"][-1] == TOKENIZER.token_text(EOS)


def test_echo_alone_tells_the_prompt_and_nothing_else(rambler: Served) -> None:
    answer = rambler.complete(prompt="Once upon", echo=True, max_tokens=0, logprobs=1).json()
    assert answer["choices"][0]["text"] == "Once upon"
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 0
    assert len(answer["choices"][0]["logprobs"]["tokens"]) == answer["usage"]["prompt_tokens"]


def test_half_characters_have_names_of_their_own() -> None:
    ids = TOKENIZER.encode("🦊🦝", add_special_tokens=False)
    with served(says_ids(ids)) as server:
        logprobs = server.complete(logprobs=1).json()["choices"][0]["logprobs"]
    assert any(name.startswith("bytes:\\x") for name in logprobs["tokens"])
    told = [TOKENIZER.token_bytes(token) for token in ids]
    assert len(set(logprobs["tokens"][:-1])) == len(set(told))


def test_usage_counts_each_prompt_once(rambler: Served) -> None:
    answer = rambler.complete(prompt=["aa bb", "cc"], n=3, max_tokens=4, ignore_eos=True).json()
    assert answer["usage"]["prompt_tokens"] == len(TOKENIZER.encode("aa bb")) + len(TOKENIZER.encode("cc"))
    assert answer["usage"]["completion_tokens"] == 2 * 3 * 4
    assert [choice["index"] for choice in answer["choices"]] == list(range(6))


def test_stop_token_ids_and_special_tokens(talker: Served) -> None:
    ids = TOKENIZER.encode(TEXT, add_special_tokens=False)
    place = next(place for place in range(3, len(ids)) if ids[place] not in ids[:place])
    choice = talker.complete(stop_token_ids=[ids[place]], max_tokens=50).json()["choices"][0]
    assert choice["text"] == TOKENIZER.decode(ids[:place])
    assert choice["finish_reason"] == "stop"
    shown = talker.complete(ignore_eos=True, skip_special_tokens=False, max_tokens=len(ids) + 1).json()["choices"][0]
    assert shown["text"] == TEXT + TOKENIZER.decode([EOS], False)


def test_logit_bias_reaches_the_engine_as_ids(rambler: Served) -> None:
    assert rambler.complete(logit_bias={"17": -100, "5": 2.5}).status == 200


def test_a_prompt_one_short_of_the_context_gets_one_token(rambler: Served) -> None:
    answer = rambler.complete(prompt=[7] * (MAX_MODEL_LEN - 1)).json()
    assert answer["usage"]["completion_tokens"] == 1
