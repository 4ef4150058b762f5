"""`--quantization-cache`: the second start quantizes nothing and answers the same, whatever is wrong with the file."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from quire import LLM, SamplingParams
from quire.quant.planes import Planes
from quire.quant.rounded import Rounded
from quire.weights import packed_file
from tests.models.tiny import make_tiny

PARAMS = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, logprobs=1)
INT4 = {"quantization": "int4", "threads": 1, "max_num_batched_tokens": 32}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_tiny(tmp_path / "model", "qwen3", dtype="bfloat16", tie_word_embeddings=True)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "here"


def ask(model: Path, cache: Path | None, **options: Any) -> tuple[Any, str]:
    """An answer with its log probabilities, and what was noted while loading."""
    llm = LLM(model, quantization_cache=None if cache is None else str(cache), **{**INT4, **options})
    try:
        sample = llm.generate([[1, 2, 3, 4, 5]], PARAMS)[0].outputs[0]
        return (sample.token_ids, sample.cumulative_logprob), "\n".join(llm.notes)
    finally:
        llm.close()


def only_file(cache: Path) -> Path:
    (path,) = cache.iterdir()
    return path


@pytest.mark.parametrize("head", ["auto", "int4x2"])
def test_the_second_start_reads_what_the_first_wrote(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    expected, note = ask(model, None, head_quantization=head)
    assert note == ""
    first, note = ask(model, cache, head_quantization=head)
    assert "kept for the next start" in note
    assert str(only_file(cache)) in note
    for form in (Rounded, Planes):
        monkeypatch.setattr(form, "hold", lambda *_: pytest.fail("something was quantized"))
    second, note = ask(model, cache, head_quantization=head)
    assert note == f"quantized weights read from {only_file(cache)}"
    assert expected == first == second


def test_each_format_has_a_file_of_its_own(model: Path, cache: Path) -> None:
    heads = ({"head_quantization": head} for head in ("none", "int4x2"))
    for options in ({}, {"quantization": "int8"}, {"quantization_group_size": 64}, *heads):
        assert "kept for the next start" in ask(model, cache, **options)[1]
    assert len(list(cache.iterdir())) == 5


def touch(model: Path) -> None:
    os.utime(model / "model.safetensors", ns=(1, 1))


def change_config(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))


@pytest.mark.parametrize(("change", "named"), [(touch, "files"), (change_config, "model")])
def test_a_changed_checkpoint_is_quantized_again(model: Path, cache: Path, change: Any, named: str) -> None:
    ask(model, cache)
    change(model)
    answer, note = ask(model, cache)
    assert f"it was made from something else: {named} changed" in note
    assert "kept for the next start" in note
    assert answer == ask(model, None)[0]
    assert "read from" in ask(model, cache)[1]


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[packed_file.BODY_BEGIN + 1000] ^= 16
    path.write_bytes(raw)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def another_shape(path: Path) -> None:
    """A whole and honest file whose weights are not what they are said to be."""
    raw = path.read_bytes()
    _, begin, length, _ = packed_file.PROLOGUE.unpack(raw[:64])
    index = json.loads(raw[begin : begin + length])
    entries = {key: (fields, raw[fields[5] : fields[5] + fields[6]]) for key, fields in index["weights"].items()}
    writer = packed_file.Writer(path, index["identity"])
    for key, (fields, data) in entries.items():
        writer.add(key, (fields[0], fields[1] + 1000), tuple(fields[2:5]), memoryview(data))
    writer.finish()


@pytest.mark.parametrize("harm", [flip, cut, another_shape])
def test_a_damaged_file_is_written_again(model: Path, cache: Path, harm: Any) -> None:
    expected, _ = ask(model, cache)
    harm(only_file(cache))
    answer, note = ask(model, cache)
    assert "quantized again" in note
    assert "kept for the next start" in note
    assert answer == expected
    assert "read from" in ask(model, cache)[1]


def test_a_folder_that_cannot_be_made_is_a_warning(model: Path, cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("a file")
    answer, note = ask(model, cache)
    assert note.startswith("WARNING: the quantized weights are not kept in")
    assert answer == ask(model, None)[0]


@pytest.mark.parametrize("after", [0, 5])
def test_a_full_disk_is_a_warning(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    written = []

    def write(file: int, data: memoryview, begin: int) -> int:
        written.append(begin)
        if len(written) > after:
            raise OSError(28, "No space left on device")
        return len(data)

    monkeypatch.setattr(packed_file.os, "pwrite", write)
    answer, note = ask(model, cache)
    assert note == f"WARNING: the quantized weights are not kept in {cache}: No space left on device"
    assert list(cache.iterdir()) == []
    monkeypatch.undo()
    assert answer == ask(model, None)[0]


def test_a_load_that_fails_leaves_nothing(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Rounded, "hold", fail)
    with pytest.raises(MemoryError):
        ask(model, cache)
    assert list(cache.iterdir()) == []


def test_a_copied_model_has_a_file_of_its_own(model: Path, cache: Path, tmp_path: Path) -> None:
    ask(model, cache)
    shutil.copytree(model, tmp_path / "copy")
    assert "kept for the next start" in ask(tmp_path / "copy", cache)[1]
    assert len(list(cache.iterdir())) == 2
