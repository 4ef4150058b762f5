"""The receipt: what it tells, that every part moves the fingerprint, and the seed that an answer was drawn with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from served import TEXT, Served, says, served

from quire.cli.folder_receipt import folder_receipt
from quire.engine.engine_receipt import code_digest
from quire.llm import BUNDLED, LLM
from quire.receipt import MEANINGS, Receipt

PARTS = {"weights": "1", "isa": "avx2"}


def test_differences_name_the_part() -> None:
    one, two = Receipt.of(PARTS), Receipt.of({"isa": "avx512", "weights": "1", "rope": "2"})
    assert one.differences(one) == []
    assert one.differences(two) == [("isa", "avx2", "avx512"), ("rope", "", "2")]
    assert one.digest != two.digest
    assert one.digest == Receipt.of(dict(reversed(PARTS.items()))).digest
    assert (one | two) == two


def test_every_part_is_explained_and_what_bits_depend_on_changes_it() -> None:
    def parts(**options: object) -> dict[str, str]:
        llm = LLM(threads=1, max_num_batched_tokens=32, **options)
        llm.close()
        return dict((llm.receipt | folder_receipt(BUNDLED)).parts)

    usual = parts()
    assert set(usual) == set(MEANINGS)
    assert parts() == usual
    changed = {
        name for name, value in parts(quantization="int8", kv_cache_dtype="int8").items() if value != usual[name]
    }
    assert changed == {"formats"}
    changed = {name for name, value in parts(max_model_len=100).items() if value != usual[name]}
    assert changed == {"context", "rope"}


def test_the_code_is_part_of_it(tmp_path: Path) -> None:
    """A kernel library of another build, a changed line of a model; not a changed scheduler."""
    for file in ("kernels/cpu/_cpu.so", "models/llama.py", "scheduling/policy.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("x")
    digests = [code_digest(tmp_path)]
    for file in ("kernels/cpu/_cpu.so", "models/llama.py"):
        (tmp_path / file).write_text("y")
        digests.append(code_digest(tmp_path))
    (tmp_path / "scheduling/policy.py").write_text("y")
    assert code_digest(tmp_path) == digests[-1]
    assert len(set(digests)) == 3


@pytest.mark.parametrize(
    ("file", "old", "new", "part"),
    [
        ("tokenizer.json", '"version": "1.0"', '"version":  "1.0"', "tokenizer"),
        ("chat_template.jinja", "{", " {", "template"),
        ("generation_config.json", "0.3", "0.4", "defaults"),
    ],
)
def test_the_folders_files_are_part_of_it(tmp_path: Path, file: str, old: str, new: str, part: str) -> None:
    for path in BUNDLED.glob("*.j*"):
        shutil.copy(path, tmp_path)
    text = (BUNDLED / file).read_text()
    assert old in text or part == "tokenizer"
    (tmp_path / file).write_text(text.replace(old, new, 1) if old in text else text + "\n")
    assert [name for name, _, _ in folder_receipt(BUNDLED).differences(folder_receipt(tmp_path))] == [part]


def test_the_route_tells_the_parts_behind_the_fingerprint(talker: Served) -> None:
    told = talker.get("/receipt").json()
    assert told["object"] == "receipt"
    assert told["system_fingerprint"] == talker.chat().json()["system_fingerprint"]
    assert told["system_fingerprint"].startswith("quire-0.0.0-")


def test_the_seed_comes_back_and_gives_the_same_answer() -> None:
    with served() as server:
        first = server.complete(max_tokens=12, temperature=1.0)
        seed = int(first.headers["x-quire-seed"])
        again = server.complete(max_tokens=12, temperature=1.0, seed=seed)
        assert again.json()["choices"] == first.json()["choices"]
        assert server.complete(prompt=["a", "b"], seed=7).headers["x-quire-seed"] == "7, 7"
        assert "x-quire-seed" not in server.complete(prompt=["a"] * 65, max_tokens=1).headers
        streamed = server.chat(stream=True, seed=-3)
        assert streamed.headers["x-quire-seed"] == "-3"


def test_the_seed_is_told_of_text_that_needs_none() -> None:
    with served(says(TEXT)) as server:
        assert server.chat(temperature=0).headers["x-quire-seed"].isdigit()
