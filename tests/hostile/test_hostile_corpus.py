"""The corpus of hostile requests: the same from the same seed, whole, and judged as it should be.

Knows: chaos/. Does not know: servers.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from chaos import advisories, advisories_page, corpus, lies, mutate, torture
from chaos.bodies import JUNK, SAMPLES, any_body, generation, is_short, names_of
from chaos.entry import ANSWERED, CLOSED, LEFT, SILENT, Entry, read, size, write
from chaos.http_text import CHAT, COMPLETIONS, KEY, Object, Raw, render, stranger
from chaos.sender import is_whole
from quire.server import fields, schema

ROOT = Path(__file__).resolve().parents[2]


def test_a_corpus_is_the_same_from_the_same_seed(tmp_path: Path) -> None:
    texts = []
    for name in ("a", "b"):
        assert write(tmp_path / name, corpus.entries(300, seed=5)) == 300
        texts.append((tmp_path / name).read_bytes())
    write(tmp_path / "c", corpus.entries(300, seed=6))
    assert texts[0] == texts[1] != (tmp_path / "c").read_bytes()


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    made = list(corpus.entries(500, seed=2))
    write(tmp_path / "corpus", made)
    assert list(read(tmp_path / "corpus")) == made


def test_every_class_is_in_a_small_corpus_and_every_payload_in_a_large_one() -> None:
    small = {entry.kind for entry in corpus.entries(200, seed=1) if entry.kind.startswith("advisory:")}
    assert small == {f"advisory:{row.name}" for row in advisories.TABLE}
    everything = [entry for row in advisories.TABLE for entry in row.entries()]
    assert len(everything) > 350
    assert sorted(map(repr, advisories.all_entries(Random(3)))) == sorted(map(repr, everything))


def test_every_family_has_its_share() -> None:
    kinds = [corpus.family(entry.kind) for entry in corpus.entries(2000, seed=4)]
    for name in corpus.SHARES:
        assert kinds.count(name) > 20, name
    assert kinds.count("value") > 400


def test_strangers_have_many_keys() -> None:
    texts = [entry.steps[0] for entry in corpus.entries(400, seed=1) if isinstance(entry.steps[0], str)]
    assert sum(stranger(number) in text for number in range(64) for text in texts if stranger(number) != KEY) > 200


def test_every_byte_can_be_sent() -> None:
    for entry in corpus.entries(2000, seed=7):
        for step in entry.steps:
            if isinstance(step, str):
                step.encode("latin-1")
            elif isinstance(step, tuple):
                step[0].encode("latin-1")
        assert entry.num_bytes == sum(map(size, entry.steps)) > -1


def test_honest_posts_tell_their_length() -> None:
    rng = Random(1)
    for _ in range(200):
        path, body = any_body(rng)
        text = next(iter([entry.steps[0] for entry in [Entry("", (corpus.post(path, body),))]]))
        assert isinstance(text, str)
        head, _, rest = text.partition("\r\n\r\n")
        assert f"Content-Length: {len(rest)}" in head
        json.loads(rest)


def test_there_is_a_value_for_every_implemented_field() -> None:
    for kind in (schema.ChatBody, schema.CompletionBody, schema.TokenizeBody):
        assert (
            kind.model_fields.keys() - {"messages", "prompt", "max_tokens", "max_completion_tokens"} <= SAMPLES.keys()
        )
    assert {"prediction", "chat_template"} <= set(names_of(CHAT)) >= fields.INERT


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_bodies_compute_few_tokens(path: str) -> None:
    rng = Random(2)
    assert all(is_short(generation(rng, path)) for _ in range(100))
    assert not is_short({"prompt": "x"})
    assert not is_short({"prompt": "x", "max_tokens": True})


def test_what_is_not_short_is_left_early() -> None:
    for entry in corpus.entries(3000, seed=3):
        if entry.kind in ("value", "tree") and isinstance(text := entry.steps[0], str) and '"max_tokens"' not in text:
            generates = text.startswith((f"POST {CHAT} ", f"POST {COMPLETIONS} "))
            assert entry.leave_s is not None or not generates or '"max_completion_tokens"' in text


def test_what_json_does_not_allow_can_be_written() -> None:
    assert render({"a": Raw("NaN"), "b": [1, None, "é"]}) == '{"a": NaN, "b": [1, null, "\\u00e9"]}'
    assert render(Object(("a", 1), ("a", 2))) == '{"a": 1, "a": 2}'
    assert len(render(10**4500)) > 4300
    assert mutate.deep(3, "list").text == "[[[1]]]"
    assert render([True, 10**30]) == f"[true, {10**30}]"


def test_torture_fits_its_bounds() -> None:
    assert len(torture.strings()) >= len(torture.OWN)
    assert all(len(text) <= torture.MOST_CHARACTERS for text in torture.strings())
    assert all(max(map(ord, text), default=0) < 256 for text in torture.json_texts())


def test_samples_and_junk_stay_as_they_are() -> None:
    before = render(list(JUNK)), repr(SAMPLES)
    for _ in corpus.entries(3000, seed=7):
        pass
    assert (render(list(JUNK)), repr(SAMPLES)) == before


def test_lies_are_all_told() -> None:
    kinds = {make(Random(seed)).kind for make in lies.ALL for seed in range(20)}
    assert len(kinds) == len(lies.ALL)


def test_outcomes_are_judged() -> None:
    entry = Entry("x", ("GET",), ANSWERED)
    assert all(entry.accepts(outcome) for outcome in ("200", "400", "429"))
    assert not any(entry.accepts(outcome) for outcome in ("500", "503", "302", CLOSED, SILENT, LEFT))
    assert Entry("x", (), ANSWERED, leave_s=0.1).accepts(LEFT)
    assert not Entry("x", (), ("4xx",)).accepts("200")


@pytest.mark.parametrize(
    ("data", "whole"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok", False),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n", False),
        (b"HTTP/1.1 100 Continue\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\n", False),
        (b"", False),
    ],
)
def test_whole_answers_are_known(data: bytes, whole: bool) -> None:
    assert is_whole(data) == whole


def test_the_page_of_advisories_is_what_its_module_writes() -> None:
    page = (ROOT / "docs" / "advisories.md").read_text(encoding="utf-8")
    assert page == advisories_page.page(), "run `python -m chaos.advisories_page`"
