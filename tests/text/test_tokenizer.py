"""The tokenizer against transformers and llama.cpp's goldens, and its refusals.

Knows: real tokenizers. Does not know: models.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quire.errors import BrokenCheckpoint, RequestError
from quire.text.tokenizer import Tokenizer

GOLDEN = ["gpt-2", "llama-bpe", "llama-spm", "qwen2"]
FOLDERS = ["tokenizers/gpt-2", "tokenizers/llama-bpe", "tokenizers/llama-spm", "tokenizers/phi-3", "tokenizers/qwen2",
           "tokenizers/minimind", "models/stories260K", "models/stories260K-hd64"]  # fmt: skip
SEPARATOR = "\n__ggml_vocab_test__\n"
SAMPLES = [
    "",
    " ",
    "Hello  world ",
    " Hi\n\n\tthere",
    "<s>a b</s>x",
    "日本🦙 e\u0301 ﬁ",
    "a<|im_end|> <|endoftext|>b",
    "\x00\x7f",
]
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@functools.cache
def load(folder: Path) -> Tokenizer:
    return Tokenizer.from_folder(folder)


@functools.cache
def load_oracle(folder: Path) -> Any:
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(str(folder))


@pytest.fixture(params=FOLDERS)
def folder(request: pytest.FixtureRequest, shared_data: Path) -> Path:
    return shared_data / request.param


@pytest.mark.parametrize("name", GOLDEN)
def test_goldens(name: str, shared_data: Path) -> None:
    tokenizer = load(shared_data / "tokenizers" / name)
    stem = shared_data / "tokenizers" / "gguf" / f"ggml-vocab-{name}.gguf"
    texts = Path(f"{stem}.inp").read_bytes().decode("utf-8").split(SEPARATOR)
    lines = Path(f"{stem}.out").read_text(encoding="utf-8").split("\n")
    wanted = [[int(number) for number in line.split()] for line in lines[: len(texts)]]
    assert len(wanted) > 40
    assert [tokenizer.encode(text, add_special_tokens=False) for text in texts] == wanted


def naughty(shared_data: Path) -> list[str]:
    strings: list[str] = json.loads((shared_data / "utf8" / "blns.json").read_text(encoding="utf-8"))
    return [*SAMPLES, *strings]


def test_agrees_with_transformers(folder: Path, shared_data: Path) -> None:
    ours, theirs = load(folder), load_oracle(folder)
    for text in naughty(shared_data)[::5]:
        for special in (True, False):
            ids = ours.encode(text, add_special_tokens=special)
            assert ids == theirs.encode(text, add_special_tokens=special), text
            assert ours.decode(ids, skip_special_tokens=special) == theirs.decode(ids, skip_special_tokens=special)


@quick
@given(data=st.data())
def test_decodes_any_ids_as_transformers_does(folder: Path, data: st.DataObject) -> None:
    ours, theirs = load(folder), load_oracle(folder)
    ids = data.draw(st.lists(st.integers(0, ours.vocab_size - 1), max_size=20))
    skip = data.draw(st.booleans())
    assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)


def test_names_what_transformers_names(folder: Path) -> None:
    ours, theirs = load(folder), load_oracle(folder)
    assert ours.vocab_size == len(theirs)
    assert {**ours.named} == theirs.special_tokens_map
    if theirs.eos_token is not None:
        assert (ours.bos_id, ours.eos_id) == (theirs.bos_token_id, theirs.eos_token_id)
    assert ours.special_ids == {i for i, token in theirs.added_tokens_decoder.items() if token.special}


def test_a_named_token_that_its_normalizer_rewrites_is_still_skipped(shared_data: Path) -> None:
    """The library alone shows this folder's end token; transformers' model class hides it, as users expect."""
    tokenizer = load(shared_data / "models/TinyStories-656K")
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)
    ids = tokenizer.encode("Once upon a time")
    assert ids[0] == 1
    assert tokenizer.decode([*ids, 2]) == "Once upon a time"
    assert tokenizer.decode(ids) == load_oracle(shared_data / "models/TinyStories-656K").decode(
        ids, skip_special_tokens=True
    )


def test_bytes_of_tokens_add_up_to_the_text(folder: Path, shared_data: Path) -> None:
    tokenizer = load(folder)
    for text in naughty(shared_data):
        ids = tokenizer.encode(text, add_special_tokens=False)
        joined = b"".join(tokenizer.token_bytes(token_id) for token_id in ids).decode("utf-8")
        whole = tokenizer.decode(ids, skip_special_tokens=False)
        assert joined in (whole, " " + whole)  # SentencePiece's decoding drops the space it put before the text


def test_every_byte_has_a_token_that_stands_for_it(folder: Path) -> None:
    tokenizer = load(folder)
    found = {tokenizer.token_bytes(token_id) for token_id in range(tokenizer.vocab_size)}
    # byte-level vocabularies made from text lack the bytes that UTF-8 never uses
    assert {bytes((byte,)) for byte in range(0xC0)} <= found


def test_bytes_and_texts_of_single_tokens(shared_data: Path) -> None:
    level, pieces = load(shared_data / "tokenizers/gpt-2"), load(shared_data / "tokenizers/llama-spm")
    assert level.token_bytes(level.id_of("Ġworld") or 0) == b" world"
    assert level.token_bytes(level.id_of("Ċ") or 0) == b"\n"
    assert pieces.token_bytes(pieces.id_of("<0x0A>") or 0) == b"\n"
    assert pieces.token_bytes(pieces.id_of("▁the") or 0) == b" the"
    assert pieces.token_text(pieces.id_of("<0xE2>") or 0) == "\ufffd"
    assert level.token_bytes(level.vocab_size + 5) == b""
    assert level.id_of("no such token") is None


def test_a_lone_surrogate_is_refused_under_the_callers_name(shared_data: Path) -> None:
    tokenizer = load(shared_data / "models/stories260K")
    with pytest.raises(RequestError, match=r"U\+D800 at character 1") as caught:
        tokenizer.encode("a\ud800", param="messages[0].content")
    assert caught.value.param == "messages[0].content"


def copy(source: Path, target: Path, **config: Any) -> Path:
    target.joinpath("tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())
    known = source / "tokenizer_config.json"
    merged = {**(json.loads(known.read_text()) if known.is_file() else {}), **config}
    target.joinpath("tokenizer_config.json").write_text(json.dumps(merged))
    return target


@pytest.mark.parametrize(
    "config",
    [
        {"add_bos_token": True},
        {"add_bos_token": True, "add_eos_token": True},
        {"add_bos_token": False},
        {"add_bos_token": True, "bos_token": None},
        {"additional_special_tokens": ["Hello", "<new>"]},
        {"extra_special_tokens": {"image_token": "<img>"}},
        {"pad_token": {"__type": "AddedToken", "content": "<pad>", "lstrip": True, "normalized": False}},
        {"added_tokens_decoder": {"9000": {"content": "<late>", "lstrip": False, "rstrip": True, "normalized": False,
                                           "single_word": False, "special": False}}},
    ],
)  # fmt: skip
@pytest.mark.parametrize("source", ["tokenizers/minimind", "models/stories260K"])
def test_reads_tokenizer_config_as_transformers_does(
    config: dict[str, Any], source: str, shared_data: Path, tmp_path: Path
) -> None:
    made = copy(shared_data / source, tmp_path, **{"bos_token": "<s>", "eos_token": "</s>", **config})
    ours, theirs = Tokenizer.from_folder(made), load_oracle(made)
    text = "Hello there <new> <img> <pad> <late>  x</s>"
    assert ours.encode(text) == theirs.encode(text)
    assert ours.decode(ours.encode(text)) == theirs.decode(ours.encode(text), skip_special_tokens=True)
    assert ours.named == theirs.special_tokens_map
    assert ours.vocab_size == len(theirs)


def test_special_tokens_map_wins_where_no_tokens_are_added(shared_data: Path, tmp_path: Path) -> None:
    made = copy(shared_data / "tokenizers/minimind", tmp_path, eos_token="<|endoftext|>")
    made.joinpath("special_tokens_map.json").write_text('{"eos_token": {"content": "<|im_end|>"}}')
    assert Tokenizer.from_folder(made).eos_id == load_oracle(made).eos_token_id == 2


def test_config_json_names_the_ends_where_nothing_else_does(shared_data: Path, tmp_path: Path) -> None:
    made = copy(shared_data / "tokenizers/minimind", tmp_path)
    made.joinpath("config.json").write_text('{"bos_token_id": 1, "eos_token_id": [2, 0]}')
    tokenizer = Tokenizer.from_folder(made)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"\xff\xfe", b"[]", b'{"model": {"type": "BPE", "vocab": {}, "merges": ["a b"]}}']
)
def test_a_broken_tokenizer_json_is_one_sentence(data: bytes, tmp_path: Path) -> None:
    tmp_path.joinpath("tokenizer.json").write_bytes(data)
    with pytest.raises(BrokenCheckpoint, match=r"not a valid tokenizer\.json"):
        Tokenizer.from_folder(tmp_path)


def test_a_truncated_tokenizer_json_is_refused(shared_data: Path, tmp_path: Path) -> None:
    data = (shared_data / "models/stories260K/tokenizer.json").read_bytes()
    for length in range(1, len(data), len(data) // 25):
        tmp_path.joinpath("tokenizer.json").write_bytes(data[:length])
        with pytest.raises(BrokenCheckpoint):
            Tokenizer.from_folder(tmp_path)


def test_missing_and_malformed_files_are_named(shared_data: Path, tmp_path: Path) -> None:
    with pytest.raises(BrokenCheckpoint, match=r"tokenizer\.json is missing"):
        Tokenizer.from_folder(tmp_path)
    copy(shared_data / "models/stories260K", tmp_path)
    for text in ("{", "[1]", '{"added_tokens_decoder": {"x": {}}}', '{"added_tokens_decoder": 3}'):
        tmp_path.joinpath("tokenizer_config.json").write_text(text)
        with pytest.raises(BrokenCheckpoint, match=r"tokenizer_config\.json"):
            Tokenizer.from_folder(tmp_path)
