"""The request log: what a line holds, who may read the file, how large it grows, and what a full disk does."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from served import EOS, SPEC, TOKENIZER, Served, says, served, wait_until

from quire.errors import InvalidSetting
from quire.plan import plan
from quire.server.logged import LoggedJob, decode, encode, options_of
from quire.server.request_log import RequestLog
from quire.settings import EngineSettings

TEXT = "Once there was a small fox."
IDS = tuple(TOKENIZER.encode(TEXT, add_special_tokens=False))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "requests.jsonl"


@pytest.fixture
def server(path: Path) -> Iterator[Served]:
    with served(says(TEXT), log=RequestLog(path, 2**20)) as made:
        yield made


def jobs(server: Served, path: Path, count: int) -> list[LoggedJob]:
    wait_until(lambda: path.read_bytes().count(b"\n") >= count)
    found = [decode(line) for line in path.read_bytes().splitlines()]
    assert len(found) == count
    return found


def test_a_line_holds_what_was_asked_and_what_came(server: Served, path: Path) -> None:
    answer = server.chat(seed=5, temperature=0.7, user="ann", cache_salt="secret", max_tokens=30)
    (job,) = jobs(server, path, 1)
    assert (job.id, job.answer) == (answer.headers["x-request-id"], answer.json()["id"])
    assert job.fingerprint == answer.json()["system_fingerprint"]
    assert job.receipt == dict(server.service.receipt.parts)
    assert job.ended == "stop"
    (logged,) = job.requests
    assert (logged.request.params.seed, logged.request.params.temperature) == (5, 0.7)
    assert logged.samples[0].ids == (*IDS, EOS)
    assert logged.samples[0].finish == "stop"
    assert all(isinstance(value, float) for value in logged.samples[0].logprobs)
    assert len(logged.samples[0].logprobs) == len(IDS) + 1
    assert b"ann" not in path.read_bytes()
    assert b"secret" not in path.read_bytes()
    assert encode(job) == path.read_bytes()


def test_the_log_changes_nothing_that_is_told(path: Path) -> None:
    with served(says(TEXT)) as plain, served(says(TEXT), log=RequestLog(path, 2**20)) as logging:
        for body in ({}, {"logprobs": 2}, {"stream": True}, {"n": 2}, {"stop": "there"}, {"echo": True}):
            told = [server.complete(seed=1, **body).body for server in (plain, logging)]
            assert told[0] == told[1]


def test_a_stop_string_ends_what_is_logged_where_it_ends_what_is_told(server: Served, path: Path) -> None:
    answer = server.complete(stop=" small", max_tokens=20, return_token_ids=True).json()
    (job,) = jobs(server, path, 1)
    (sample,) = job.requests[0].samples
    assert list(sample.ids) == answer["choices"][0]["token_ids"]
    assert sample.finish is None


def test_whoever_leaves_is_logged_as_far_as_he_was_told(path: Path) -> None:
    with served(says(TEXT, end=False), log=RequestLog(path, 2**20)) as server:
        server.runner.pace_s = 0.01
        body = {"prompt": "x", "max_tokens": 400, "stream": True}
        with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=20) as answer:
            next(answer.iter_lines())
        (job,) = jobs(server, path, 1)
        assert job.ended == "disconnect"
        assert 0 < len(job.requests[0].samples[0].ids) < 400
        assert job.requests[0].samples[0].finish is None


def test_only_the_owner_may_read_it(path: Path) -> None:
    path.write_text("half a li")
    path.chmod(0o644)
    log = RequestLog(path, 2**20)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(InvalidSetting, match="another server"):
        RequestLog(path, 2**20)
    log.close()
    assert path.read_text() == "half a li\n"


def test_a_place_that_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "none" / "x", tmp_path / "pipe"):
        with pytest.raises(InvalidSetting, match="--request-log"):
            RequestLog(path, 2**20)


def a_job(number: int) -> LoggedJob:
    return LoggedJob(1, str(number), "", 0.0, "chat", "m", "", {}, "", {}, ())


def test_it_begins_anew_and_keeps_one(path: Path) -> None:
    log = RequestLog(path, 3 * len(encode(a_job(1))))
    for number in range(1, 9):
        log.write(a_job(number))
    log.close()
    old = path.with_name(path.name + ".1")
    assert [decode(line).id for line in old.read_bytes().splitlines()] == ["4", "5", "6"]
    assert [decode(line).id for line in path.read_bytes().splitlines()] == ["7", "8"]
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(old.stat().st_mode) == 0o600


def test_a_full_disk_loses_lines_and_leaves_no_half_ones(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = RequestLog(path, 2**20)
    log.write(a_job(1))
    wait_until(path.read_bytes)
    whole, write, told = path.read_bytes(), os.write, []

    def full(descriptor: int, data: memoryview) -> int:
        if told:
            raise OSError(28, "No space left on device")
        told.append(1)
        return write(descriptor, data[:5])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        log.write(a_job(2))
        wait_until(lambda: told and log._num_pending == 0)
    log.write(a_job(3))
    log.close()
    assert path.read_bytes() == whole + encode(a_job(3))
    assert "not_written" in caplog.text


def test_the_options_start_the_same_engine() -> None:
    """Whatever a plan was made of: made again of its logged options, it is the same plan."""
    from quire.hardware import Hardware

    machine = Hardware("test", 2, 8 * 2**30, 8 * 2**30)
    for options in (
        {},
        {"dtype": "float32", "max_model_len": 100},
        {"quantization": "int8", "kv_cache_dtype": "int8"},
        {"quantization": "int4", "quantization_group_size": 64, "head_quantization": "none"},
        {"head_quantization": "int8"},
    ):
        made = plan(EngineSettings(**options), machine, SPEC)
        again = plan(EngineSettings(**options_of(made)), machine, SPEC)
        assert (again.precision, again.head_precision, again.kv_dtype, again.max_model_len) == (
            made.precision,
            made.head_precision,
            made.kv_dtype,
            made.max_model_len,
        )
