"""Rule A: a model folder made to do harm. What it brings to execute is never run, its numbers are refused by name.

A canary file is what every payload would leave. Knows: files of a model folder. Does not know: how they are read.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from quire.cli.prepare import prepare
from quire.cli.resolve import BUNDLED
from quire.engine.build import build_engine
from quire.errors import BrokenCheckpoint, QuireError, RequestError, StartError
from quire.model_spec import read_generation_defaults, read_model_spec
from quire.settings import EngineSettings
from quire.text.template import ChatTemplate
from quire.text.tokenizer import Tokenizer

SETTINGS = EngineSettings(max_model_len=128, max_num_seqs=2, max_num_batched_tokens=64, threads=1)
pytestmark = pytest.mark.skipif(not (BUNDLED / "config.json").is_file(), reason="the bundled model is not built")


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """Fails a test that leaves it."""
    path = tmp_path / "canary"
    before = set(sys.modules)
    yield path
    assert not path.exists(), "a payload ran"
    assert not [name for name in set(sys.modules) - before if "evil" in name], "a module of the folder was imported"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    for path in BUNDLED.iterdir():
        if path.name == "model.safetensors":
            os.link(path, made / path.name) if _same_disk(path, made) else shutil.copy(path, made)
        else:
            shutil.copy(path, made)
    return made


def _same_disk(path: Path, folder: Path) -> bool:
    return path.stat().st_dev == folder.stat().st_dev


class Payload:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.canary),)


def start(folder: Path) -> None:
    """All that a start reads: plan, weights, tokenizer, template, defaults."""
    prepared = prepare(str(folder), None, SETTINGS)
    build_engine(prepared.plan, folder)
    tokenizer = Tokenizer.from_folder(folder)
    template = ChatTemplate.from_folder(folder, now=datetime.now)
    read_generation_defaults(folder)
    text = template.render([{"role": "user", "content": "Hi"}])
    assert tokenizer.encode(text, add_special_tokens=False)


def change(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


PICKLES = ("pytorch_model.bin", "model.pt", "consolidated.00.pth", "training_args.bin", "optimizer.pt", "model.ckpt",
           "scaler.pkl", "tokenizer.pickle", "model.safetensors.pkl")  # fmt: skip
MODULES = ("modeling_evil.py", "configuration_evil.py", "tokenization_evil.py", "handler.py", "setup.py", "__init__.py",
           "conftest.py", "sitecustomize.py", "quire.py", "numpy.py", "json.py")  # fmt: skip


def test_what_could_execute_lies_there_and_nobody_looks(folder: Path, canary: Path) -> None:
    for name in PICKLES:
        (folder / name).write_bytes(pickle.dumps(Payload(canary)))
    for name in MODULES:
        (folder / name).write_text(f"import os\nos.mkdir({str(canary)!r})\n")
    (folder / "evil.pth").write_text(f"import os; os.mkdir({str(canary)!r})")
    remote = {name: f"{name.lower()}_evil.Evil" for name in ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer")}
    change(folder, "config.json", auto_map=remote, trust_remote_code=True, custom_pipelines={"x": {"impl": "evil.X"}})
    change(folder, "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_evil.Evil", None]},
           tokenizer_class="EvilTokenizer", added_tokens_decoder={})  # fmt: skip
    change(folder, "generation_config.json", custom_generate="evil.generate", auto_map=remote)
    start(folder)


@pytest.mark.parametrize("name", PICKLES[:3])
def test_weights_that_are_a_pickle_are_refused(folder: Path, canary: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Payload(canary)))
    with pytest.raises(BrokenCheckpoint, match="never opened"):
        start(folder)


def test_a_pickle_by_the_name_of_weights_is_none(folder: Path, canary: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(pickle.dumps(Payload(canary), 0).ljust(4096, b"."))
    with pytest.raises(BrokenCheckpoint, match="safetensors"):
        start(folder)


ESCAPES = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.mkdir('CANARY') }}",
    "{{ lipsum.__globals__['os'].mkdir('CANARY') }}",
    "{{ self._TemplateReference__context.cycler.__init__.__globals__.os.mkdir('CANARY') }}",
    "{{ joiner.__init__.__globals__.os.mkdir('CANARY') }}",
    "{{ namespace.__init__.__globals__.os.mkdir('CANARY') }}",
    "{{ messages.__class__.__base__.__subclasses__() }}",
    "{{ (messages|attr('__class__')) }}",
    "{{ messages|map(attribute='__class__')|list }}",
    "{{ '%s'|format('x')|attr('format')('{0.__class__}') }}",
    "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "{{ '{a.__init__.__globals__}'.format_map({'a': cycler}) }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__globals__ }}",
    "{{ tojson.__globals__ }}",
    "{% include '/etc/passwd' %}",
    "{% import '/etc/passwd' as x %}{{ x }}",
    "{% extends '/etc/passwd' %}",
    "{% from '/etc/passwd' import x %}",
    "{{ get_flashed_messages.__globals__ }}",
    "{{ ''|attr('\\x5f\\x5fclass\\x5f\\x5f') }}",
    "{{ ''['__class__'] }}",
    "{% set x = ''.join(['__cl', 'ass__']) %}{{ ''[x] }}",
    "{{ messages.append('x') }}",
    "{{ range(10**9)|list }}",
    "{{ 'a' * 10**10 }}",
    "{{ 10 ** 10 ** 8 }}",
    "{% for i in range(10**6) %}{% for j in range(10**6) %}{% endfor %}{% endfor %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
)


@pytest.mark.parametrize("source", ESCAPES)
def test_templates_stay_in_their_sandbox(folder: Path, canary: Path, source: str) -> None:
    (folder / "chat_template.jinja").write_text(source.replace("CANARY", str(canary)))
    text = ""
    try:
        template = ChatTemplate.from_folder(folder, now=datetime.now)
        text = template.render([{"role": "user", "content": "Hi"}])
    except QuireError as refused:
        text = refused.message
    for leak in ("root:", "<class", "<module", "subprocess", "Popen", "built-in"):
        assert leak not in text


NUMBERS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
           "head_dim", "vocab_size", "max_position_embeddings")  # fmt: skip
WRONG = (10**30, 2**63, 2**64 + 256, 2**31 - 1, 2**31, 10**9, 0, -1, -(2**63), 1.5, 1e308, "4", True, [4], {"a": 4})


@pytest.mark.parametrize("key", NUMBERS)
def test_sizes_that_no_memory_holds_are_refused_before_any_is_taken(folder: Path, key: str) -> None:
    """Every one ends in a sentence that names what is wrong; none in a crash, or in memory for what is not there."""
    for value in WRONG:
        change(folder, "config.json", **{key: value})
        harmless = key == "max_position_embeddings" and type(value) is int and 0 < value < 2**31
        if harmless:
            prepare(str(folder), None, SETTINGS)
            continue
        with pytest.raises(StartError) as caught:
            start(folder)
        assert len(caught.value.message) < 1500


@pytest.mark.parametrize(
    "text", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e-999", "0", "-1", '"x"', "null"]
)
@pytest.mark.parametrize("key", ["rope_theta", "rms_norm_eps"])
def test_numbers_that_are_none_are_refused(folder: Path, key: str, text: str) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text())
    values[key] = "HERE"
    path.write_text(json.dumps(values).replace('"HERE"', text))
    if text == "null":
        read_model_spec(folder)
        return
    with pytest.raises(StartError, match=key if text[0] in '0"' or "e" in text or text == "-1" else None) as caught:
        read_model_spec(folder)
    assert len(caught.value.message) < 1500


def fifo(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("/dev/zero")


def device(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/dev/zero")


def directory(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").mkdir()


def elsewhere(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "../../../etc/passwd", "b": "/etc/passwd"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def deep(folder: Path) -> None:
    (folder / "config.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000)


def wide(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)


def bad_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": 5, "merges": [["a"]]}}')


def twisted_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"pre_tokenizer":' * 5000 + "null" + "}" * 5000)


@pytest.mark.parametrize("harm", [fifo, device, directory, elsewhere, deep, wide, bad_tokenizer, twisted_tokenizer])
def test_files_that_are_something_else_are_refused(folder: Path, harm: Callable[[Path], None]) -> None:
    harm(folder)
    with pytest.raises(StartError) as caught:
        start(folder)
    assert len(caught.value.message) < 1500
    assert "root:" not in caught.value.message


@pytest.mark.parametrize("value", [10**30, -1, float("nan"), "x", [1], True])
@pytest.mark.parametrize(
    "key", ["temperature", "top_p", "top_k", "repetition_penalty", "max_new_tokens", "eos_token_id"]
)
def test_defaults_that_nobody_could_ask_for_are_refused_or_mean_nothing(folder: Path, key: str, value: Any) -> None:
    change(folder, "generation_config.json", **{key: value})
    said = ""
    try:
        read_generation_defaults(folder).as_params()
        read_model_spec(folder)
    except (StartError, RequestError) as refused:
        said = refused.message
    assert len(said) < 1500
