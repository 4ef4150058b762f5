"""`prompt_logprobs` and echoed logprobs over HTTP: shapes, pieces of a stream, refusals; numbers are always numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from served import EOS, TOKENIZER, Answer, Served, says_ids, served

from quire.engine.grammars import ThreadKeeper
from quire.server.logprobs import TokenNames, finite, text_logprobs
from quire.server.prompt_news import ToldToken
from quire.settings import EngineSettings
from quire.step import LEAST_LOGPROB, TokenLogprob

LONG = "The small fox ran to the river and sat there. " * 8  # several steps of 128 tokens
STEPS = EngineSettings(max_model_len=512, max_num_seqs=8, max_num_batched_tokens=128)


class Spoilt:
    """A model that gives token 11 next to no chance, and a row that is not finite in steps that read token 13."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def logits(self, forward: Any, hidden_TH: np.ndarray, rows_R: np.ndarray) -> Any:
        logits_RV = self._model.logits(forward, hidden_TH, rows_R)
        logits_RV[:, 11] = -3e38
        if 13 in forward.ids_T:
            logits_RV[-1] = np.nan
        return logits_RV


@pytest.fixture(scope="module")
def model() -> Iterator[Served]:
    """The bundled model, spoilt."""
    with served(engine=STEPS, keep=ThreadKeeper) as server:
        runner: Any = server.engine.runner
        runner.model = Spoilt(runner.model)
        runner._replay = None  # a recording is of the model as it was
        yield server


def strict(answer: Answer) -> Any:
    """The body, in which NaN and Infinity are no numbers."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} in JSON")

    assert answer.status == 200, answer.body
    return json.loads(answer.body, parse_constant=refuse)


def folded(events: list[Any]) -> dict[int, list[Any]]:
    """prompt_logprobs of each choice, put together; a chat's stand beside its choices."""
    assert events[-1] == "[DONE]"
    told: dict[int, list[Any]] = {}
    for event in events[:-1]:
        for choice in event["choices"]:
            told.setdefault(choice["index"], []).extend(choice.get("prompt_logprobs", []))
        told.setdefault(0, []).extend(event.get("prompt_logprobs", []))
    return told


def assert_told(entries: list[Any], ids: list[int], num_top: int) -> None:
    assert len(entries) == len(ids)
    assert entries[0] is None
    for token, entry in zip(ids[1:], entries[1:], strict=True):
        assert next(iter(entry)) == str(token)
        assert num_top <= len(entry) <= num_top + 1
        for key, each in entry.items():
            assert set(each) == {"logprob", "rank", "decoded_token"}
            assert LEAST_LOGPROB <= each["logprob"] <= 0
            assert each["rank"] <= num_top or int(key) == token
            assert each["decoded_token"] == TOKENIZER.token_text(int(key))


@pytest.mark.parametrize("num_top", [0, 3, 20])
def test_completions_tell_every_choice_of_its_prompt(model: Served, num_top: int) -> None:
    body = {"prompt": [LONG, "a"], "n": 2, "max_tokens": 3, "seed": 1, "prompt_logprobs": num_top}
    whole = strict(model.complete(**body))
    streamed = folded(model.complete(stream=True, **body).events())
    for choice in whole["choices"]:
        assert choice["logprobs"] is None
        assert_told(choice["prompt_logprobs"], TOKENIZER.encode(body["prompt"][choice["index"] // 2]), num_top)
        assert streamed[choice["index"]] == choice["prompt_logprobs"]
    assert "prompt_logprobs" not in model.complete(max_tokens=1).json()["choices"][0]


def test_a_chat_tells_of_its_prompt_once(model: Served) -> None:
    messages = [{"role": "user", "content": LONG}]
    body = {"messages": messages, "n": 2, "max_tokens": 3, "seed": 1, "prompt_logprobs": 2, "return_token_ids": True}
    whole = strict(model.chat(**body))
    assert_told(whole["prompt_logprobs"], whole["prompt_token_ids"], 2)
    events = model.chat(stream=True, **body).events()
    assert folded(events)[0] == whole["prompt_logprobs"]
    assert sum("prompt_logprobs" in event for event in events[:-1]) > 1, "a long prompt is told step by step"
    assert "prompt_logprobs" not in model.chat(max_tokens=1).json()


def test_an_echo_is_streamed_as_it_is_computed(model: Served) -> None:
    body = {"prompt": LONG, "echo": True, "logprobs": 2, "max_tokens": 3, "n": 2, "seed": 1}
    whole = strict(model.complete(**body))
    parts = [event["choices"][0] for event in model.complete(stream=True, **body).events()[:-1]]
    for choice in whole["choices"]:
        mine = [part for part in parts if part["index"] == choice["index"]]
        assert mine[0]["text"] == LONG
        assert "".join(part["text"] for part in mine) == choice["text"]
        before = [part for part in mine if not part["text"] and part["logprobs"]]
        assert len(before) >= len(TOKENIZER.encode(LONG)) // 128
        for name, values in choice["logprobs"].items():
            assert [value for part in mine if part["logprobs"] for value in part["logprobs"][name]] == values


def test_echo_and_prompt_logprobs_have_each_their_own_number(model: Served) -> None:
    body = {"prompt": "Once upon a time", "echo": True, "logprobs": 1, "prompt_logprobs": 4, "max_tokens": 0}
    (choice,) = strict(model.complete(**body))["choices"]
    assert_told(choice["prompt_logprobs"], TOKENIZER.encode("Once upon a time"), 4)
    assert all(1 <= len(top) <= 2 for top in choice["logprobs"]["top_logprobs"][1:])
    for own, told in zip(choice["logprobs"]["token_logprobs"][1:], choice["prompt_logprobs"][1:], strict=True):
        assert own == next(iter(told.values()))["logprob"]
    plain = strict(model.complete(prompt="Once", echo=True, prompt_logprobs=1, max_tokens=1))["choices"][0]
    assert plain["logprobs"] is None
    assert plain["text"].startswith("Once")


def test_a_prompt_of_one_token_has_no_log_probability(model: Served) -> None:
    (choice,) = strict(model.complete(prompt=[7], echo=True, logprobs=1, prompt_logprobs=1, max_tokens=1))["choices"]
    assert choice["prompt_logprobs"] == [None]
    assert [values[0] for name, values in choice["logprobs"].items() if name.endswith("logprobs")] == [None, None]
    assert len(choice["logprobs"]["tokens"]) == 2


@pytest.mark.parametrize("value", [-1, 21, 1.5, True, "1"])
def test_what_is_no_number_of_tokens_is_refused(model: Served, value: Any) -> None:
    for answer in (model.complete(prompt_logprobs=value), model.chat(prompt_logprobs=value)):
        assert answer.status == 400
        assert answer.error["param"] == "prompt_logprobs"


@pytest.mark.parametrize(
    "extra",
    [
        {"structured_outputs": {"choice": ["zebra"]}},
        {"logit_bias": {"20": 100, "21": -100, "11": 100}},
        {"top_k": 1, "logit_bias": {"300": -100}},
        {"temperature": 0, "min_tokens": 5},
        {"temperature": 2, "top_p": 0.1, "repetition_penalty": 2},
    ],
)
def test_every_number_is_one_whatever_is_forbidden(model: Served, extra: dict[str, Any]) -> None:
    """What may not be drawn has the model's own log probability; what the model gives no chance at all has -9999."""
    asked = {"max_tokens": 8, "seed": 3, "prompt_logprobs": 1, **extra}
    chat = strict(model.chat(logprobs=True, top_logprobs=20, **asked))
    values = [
        each["logprob"]
        for entry in chat["choices"][0]["logprobs"]["content"]
        for each in [entry, *entry["top_logprobs"]]
    ]
    text = strict(model.complete(prompt=[5, 11, 6], echo=True, logprobs=20, **asked))["choices"][0]
    values += text["logprobs"]["token_logprobs"][1:]
    values += [value for top in text["logprobs"]["top_logprobs"][1:] for value in top.values()]
    values += [each["logprob"] for entry in text["prompt_logprobs"][1:] for each in entry.values()]
    assert all(isinstance(value, float) and LEAST_LOGPROB <= value <= 0 for value in values)
    assert text["logprobs"]["token_logprobs"][1] == LEAST_LOGPROB
    assert text["prompt_logprobs"][1]["11"]["rank"] == model.service.vocab_size


def test_logits_that_are_not_finite_end_the_request_with_an_error(model: Served) -> None:
    for body in ({"prompt": [5, 13, 6]}, {"prompt": [5, 6, 13], "prompt_logprobs": None}):
        asked = {"prompt_logprobs": 1, "logprobs": 1, "max_tokens": 2, **body}
        answer = model.complete(**asked)
        assert (answer.status, answer.error["code"]) == (500, "not_finite")
        assert "not finite" in answer.error["message"]
    events = model.complete(prompt=[*TOKENIZER.encode(LONG), 13], stream=True, prompt_logprobs=1).events()
    assert events[0]["choices"][0]["prompt_logprobs"]
    assert events[-1]["error"]["code"] == "not_finite"
    assert strict(model.complete(prompt=[5, 6], prompt_logprobs=1))["choices"]


def test_a_number_that_is_none_is_an_error_of_ours() -> None:
    for value in (float("nan"), float("inf"), -float("inf")):
        with pytest.raises(Exception, match="not finite"):
            finite(value)


def test_bytes_of_a_character_in_parts_join_to_it() -> None:
    text = "naïve 🦊🦝 世界"
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    assert any("�" in TOKENIZER.token_text(token) for token in ids), "no token is half a character"
    with served(says_ids(ids)) as server:
        entries = server.chat(logprobs=True).json()["choices"][0]["logprobs"]["content"]
        echo = server.complete(prompt=ids, echo=True, logprobs=0, max_tokens=0).json()["choices"][0]["logprobs"]
    assert bytes(byte for entry in entries[:-1] for byte in entry["bytes"]).decode() == text
    assert bytes(entries[-1]["bytes"]) == TOKENIZER.token_bytes(EOS)
    halves = [name for name in echo["tokens"] if name.startswith("bytes:")]
    assert halves
    assert all(set(name[6:].split("\\x")[1:]) <= {f"{byte:02x}" for byte in range(128, 256)} for name in halves)


def test_two_tokens_are_never_one_key() -> None:
    """Ids beyond the tokenizer have no text; a byte's token may read like a letter's."""
    names = TokenNames(TOKENIZER)
    beyond = TOKENIZER.vocab_size
    token = ToldToken(5, 0, TokenLogprob(5, -1.0, ((beyond, -1.5), (beyond + 1, -1.6), (5, -1.0))))
    (top,) = text_logprobs(names, [token], 3).top_logprobs
    assert len(json.loads(bytes(top))) == 3
    assert len(names.by_text([(5, -1.0), (5, -2.0)])) == 2


def test_tokens_by_their_ids(model: Served) -> None:
    text = strict(model.complete(prompt=[5, 6], echo=True, logprobs=2, max_tokens=1, return_tokens_as_token_ids=True))
    logprobs = text["choices"][0]["logprobs"]
    assert logprobs["tokens"][:2] == ["token_id:5", "token_id:6"]
    assert all(key.startswith("token_id:") for top in logprobs["top_logprobs"][1:] for key in top)
    chat = strict(model.chat(logprobs=True, top_logprobs=1, max_tokens=1, return_tokens_as_token_ids=True))
    (entry,) = chat["choices"][0]["logprobs"]["content"]
    assert entry["token"].startswith("token_id:")
    assert bytes(entry["bytes"]) == TOKENIZER.token_bytes(int(entry["token"][9:]))


def test_none_asked_for_and_zero_are_not_the_same(model: Served) -> None:
    assert strict(model.complete(max_tokens=1))["choices"][0]["logprobs"] is None
    top = strict(model.complete(max_tokens=1, logprobs=0))["choices"][0]["logprobs"]
    assert len(top["top_logprobs"][0]) == 1, "the drawn token itself"
    chat = strict(model.chat(max_tokens=1, logprobs=True, top_logprobs=0))["choices"][0]["logprobs"]
    assert chat["content"][0]["top_logprobs"] == []
