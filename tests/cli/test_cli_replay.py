"""`quire replay`: logged answers of the bundled model asked again, offline and over HTTP; every kind of difference."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from quire.cli.main import app
from quire.cli.replay import difference
from quire.engine.grammars import ThreadKeeper
from quire.request import Request, SamplingParams
from quire.server.logged import LoggedSample, Witness
from quire.server.request_log import RequestLog
from quire.settings import EngineSettings
from quire.step import Delta, TokenLogprob
from tests.server.served import Served, served

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
SETTINGS = EngineSettings(max_model_len=256, max_num_seqs=8, max_num_batched_tokens=64)


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Served]]:
    """A log of every kind of request, and the server that wrote it, still up."""
    path = tmp_path_factory.mktemp("log") / "requests.jsonl"
    with served(engine=SETTINGS, keep=ThreadKeeper, log=RequestLog(path, 2**24)) as server:
        assert server.chat(max_tokens=20, x=1).status == 400  # nothing was computed, nothing is logged
        server.post("/v1/completions", {"prompt": "Once", "max_tokens": 20, "temperature": 1.5}, x_request_id="one")
        server.complete(prompt=["Once", "There"], n=2, max_tokens=12, temperature=1.0, stop=[" a", "was"], logprobs=3)
        server.complete(echo=True, logprobs=0, max_tokens=3, stream=True)
        server.chat(max_tokens=30, temperature=0, repetition_penalty=1.2, logit_bias={"40": 1.5}, min_tokens=3)
        server.chat(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}})
        server.complete(prompt="Once there", use_beam_search=True, n=2, best_of=3, max_tokens=8)
        server.complete(n=1, best_of=3, max_tokens=8, temperature=1.0)
        server.service.log._thread.submit(lambda: None).result()  # everything before it has been written
        yield Path(shutil.copy(path, path.with_name("as-it-was.jsonl"))), server


def run(*arguments: Any) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["replay", *[str(each) for each in arguments]])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return done.exit_code, done.stdout, done.stderr


def change(source: Path, target: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    """The log with its first line edited, alone."""
    line = json.loads(source.read_text().splitlines()[0])
    edit(line)
    target.write_text(json.dumps(line) + "\n")
    return target


def test_the_same_engine_gives_the_same_bits(logged: tuple[Path, Served]) -> None:
    code, told, _ = run(logged[0])
    assert code == 0, told
    assert told.splitlines()[-1] == "13 identical"
    assert "identical  one prompt 0 sample 0: 20 tokens" in told


def test_only_one_request_by_either_id(logged: tuple[Path, Served]) -> None:
    answer = json.loads(logged[0].read_text().splitlines()[0])["answer"]
    for name in ("one", answer):
        code, told, _ = run(logged[0], "--id", name, "--json")
        (sample,) = json.loads(told)["samples"]
        assert (code, sample["id"], sample["outcome"], sample["num_tokens"]) == (0, "one", "identical", 20)
    code, _, told = run(logged[0], "--id", "nobody")
    assert code == 2
    assert "no such request" in told


def test_a_server_is_asked_over_http(logged: tuple[Path, Served]) -> None:
    path, server = logged
    code, told, _ = run(path, "--url", server.url)
    assert code == 1
    assert told.splitlines()[-1] == "10 identical, 3 failed"
    assert "a constrained answer" in told
    assert "a beam search" in told
    assert run(path, "--id", "one", "--url", f"{server.url}/v1/")[0] == 0
    code, _, said = run(path, "--url", "http://127.0.0.1:1")
    assert code != 0
    assert "does not answer" in said


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("ids", 7, "token 3 of 20: id was 7, is"),
        ("logprobs", -0.5, "token 3 of 20: logprob was -0.5, is"),
    ],
)
def test_a_difference_says_where_it_begins(
    logged: tuple[Path, Served], tmp_path: Path, field: str, value: float, words: str
) -> None:
    def edit(line: dict[str, Any]) -> None:
        line["requests"][0]["samples"][0][field][3] = value
        line["receipt"]["isa"] = "sse2"

    code, told, _ = run(change(logged[0], tmp_path / "log", edit))
    assert code == 1
    assert words in told
    assert "; the receipt differs in isa" in told
    assert "receipt: isa was sse2, is " in told


def test_another_seed_is_another_answer(logged: tuple[Path, Served], tmp_path: Path) -> None:
    """The comparison can fail: what is drawn with another seed is not the same."""

    def edit(line: dict[str, Any]) -> None:
        line["requests"][0]["request"]["params"]["seed"] += 1

    code, told, _ = run(change(logged[0], tmp_path / "log", edit))
    assert code == 1
    assert "the receipt is the same" in told


def test_the_engine_is_started_as_the_log_says_unless_told_otherwise(
    logged: tuple[Path, Served], tmp_path: Path
) -> None:
    code, told, _ = run(logged[0], "--id", "one", "--quantization", "int8")
    assert code == 1
    assert "the receipt differs in formats" in told

    def edit(line: dict[str, Any]) -> None:
        line["options"] |= {"quantization": "int8", "head_quantization": "int8"}

    _, told, _ = run(change(logged[0], tmp_path / "log", edit))
    assert "receipt: formats was bfloat16 bfloat16 kv-bfloat16, is int8 int8 kv-bfloat16" in told


def test_lines_that_are_none_and_models_that_are_gone(logged: tuple[Path, Served], tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b'{"form": 99}\n' + logged[0].read_bytes().splitlines()[0] + b'\n{"form": 1, "id"')
    code, told, said = run(log)
    assert code == 0
    assert "line 1 is no request" in said
    assert "line 3 is no request" in said
    assert told.splitlines()[-1] == "1 identical"
    gone = change(logged[0], log, lambda line: line.update(folder=str(tmp_path / "gone")))
    code, _, said = run(gone)
    assert code != 0
    assert "Name a --model" in said
    assert run(gone, "--model", json.loads(logged[0].read_text().splitlines()[0])["folder"])[0] == 0


def test_what_cannot_be_asked_again_fails_by_itself(logged: tuple[Path, Served], tmp_path: Path) -> None:
    code, told, _ = run(change(logged[0], tmp_path / "log", lambda line: None), "--max-model-len", 4)
    assert code == 1
    assert told.startswith("FAILED     one prompt 0 sample 0: ")


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (((1, 2), (-1.0, -2.0), "stop"), (None, "")),
        (((1, 3), (-1.0, -2.0), "stop"), (1, "id was 2, is 3")),
        (((1, 3), (-1.5, -2.0), "stop"), (0, "logprob was -1.0, is -1.5; ids differ from token 1")),
        (((1, 2), (-1.0, -2.5), "stop"), (1, "logprob was -2.0, is -2.5; all ids are the same")),
        (((1,), (-1.0,), "length"), (1, "id was 2, is length")),
        (((1, 2), (-1.0, -2.0), "length"), (2, "the end was stop, is length")),
        (((1, 2), (-1.0, -2.0), None), (2, "the end was stop, is not here")),
    ],
)
def test_the_first_difference_counts(now: Any, expected: tuple[int | None, str]) -> None:
    assert difference(LoggedSample((1, 2), (-1.0, -2.0), "stop"), LoggedSample(*now)) == expected


def test_forced_tokens_have_no_logprob_and_shift_nobody_elses() -> None:
    witness = Witness(Request("r", (1,), SamplingParams(seed=0, max_tokens=9)))
    witness.hear(Delta("r", 0, (5, 6, 7), (TokenLogprob(5, -1.0),)))
    witness.hear(Delta("r", 0, (8,), (TokenLogprob(8, -2.0),)))
    witness.told(0, 4)
    (sample,) = witness.logged().samples
    assert sample == LoggedSample((5, 6, 7, 8), (-1.0, None, None, -2.0))
