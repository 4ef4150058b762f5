"""Real torture: the JSON parsing suite, naughty strings, every code point - through the whole server and back."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from served import TOKENIZER, Served, says_ids, served

from quire.errors import RequestError
from quire.server.json_body import parse_object

TWICE = {"y_object_duplicated_key.json", "y_object_duplicated_key_and_value.json"}  # JSON allows it, we do not


def test_the_json_suite_is_judged_as_it_asks(shared_data: Path) -> None:
    lines = (shared_data / "utf8" / "JSONTestSuite_parsing.jsonl").read_text().splitlines()
    assert len(lines) > 200
    for line in lines:
        case = json.loads(line)
        name, data = case["name"], base64.b64decode(case["b64"])
        try:
            parse_object(b'{"a":' + data + b"}")
            accepted = True
        except RequestError:
            accepted = False
        if name in TWICE:
            assert not accepted
        elif name[0] in "yn":
            assert accepted == (name[0] == "y"), name


@pytest.fixture(scope="module")
def naughty(shared_data: Path) -> list[str]:
    texts = json.loads((shared_data / "utf8" / "blns.json").read_text())
    assert len(texts) > 400
    return [text for text in texts if text]


def test_naughty_strings_go_in(rambler: Served, naughty: list[str]) -> None:
    for text in naughty:
        answer = rambler.post("/tokenize", json.dumps({"prompt": text}, ensure_ascii=False).encode())
        assert rambler.post("/detokenize", {"tokens": answer.json()["tokens"]}).json()["prompt"] == text
    for text in naughty[::10]:
        message = {"role": "user", "content": text}
        assert rambler.post("/v1/chat/completions", {"messages": [message], "max_tokens": 1}).status == 200


def test_every_code_point_comes_out_whole(shared_data: Path) -> None:
    path = shared_data / "utf8" / "utf8_sequence_0-0x10ffff_assigned_printable_unseparated.txt"
    text = path.read_text(encoding="utf-8")
    script: list[int] = []
    with served(lambda draw, index: script[len(draw.history) - draw.num_prompt]) as server:
        for start in range(0, len(text), 20_000):
            part = text[start : start + 120]
            script[:] = [*TOKENIZER.encode(part, add_special_tokens=False), *[2]]
            events = server.complete(stream=True, max_tokens=len(script)).events()
            shown = [event["choices"][0]["text"] for event in events[:-1]]
            assert "".join(shown) == part
            assert all("\ufffd" not in each for each in shown) or "\ufffd" in part


def test_half_a_character_at_the_end_is_told_as_such() -> None:
    ids = TOKENIZER.encode("🦊", add_special_tokens=False)
    if len(ids) == 1:
        pytest.skip("this tokenizer knows the fox as one token")
    with served(says_ids(ids[:-1])) as server:
        assert "\ufffd" in server.complete().json()["choices"][0]["text"]
