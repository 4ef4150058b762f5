"""Disks that are full or read-only, where the server writes.

Knows: the options that name places. Does not know: what is written there.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path

from chaos import asking
from chaos.asking import Load, complete, during, told
from chaos.case import Case, check
from chaos.places import large_model, little_room, tmpfs
from chaos.served import DidNotStart, served

QUIET = ("--log-level", "warning")


def full_quantization_cache() -> str:
    """Quantized weights do not fit where they are to be kept."""
    with (
        little_room(2**20) as (folder, limit, how),
        served(*QUIET, "--quantization", "int8", "--quantization-cache", str(folder), before=limit) as server,
    ):
        check(complete(server.port)[0] == 200, "not answered")
        check("are not kept" in server.said, f"it does not say so: {server.said[-300:]}")
        check("Traceback" not in server.said, "a traceback")
        left = [each.name for each in folder.iterdir()]
        check(not left, f"files are left behind: {left}")
        return f"{how}: a warning, no file left behind, serves"


def full_request_log() -> str:
    """The request log's disk fills up."""
    with little_room(2**16) as (folder, limit, how):
        path = folder / "requests.jsonl"
        with served(*QUIET, "--request-log", str(path), before=limit) as server:
            streams, _ = during(server.port, Load(num_streams=8, num_tokens=60), lambda: None)
            check(not streams.harmed, told(streams))
            check(complete(server.port)[0] == 200, "not answered once the disk is full")
            check("not_written" in server.said, "it does not say so")
            lines = path.read_bytes().splitlines(keepends=True)
            check(lines and all(line.endswith(b"\n") for line in lines), "half a line stands in the log")
            for line in lines:
                json.loads(line)
            said = server.said.count("not_written")
        return f"{how}: {told(streams)}; {len(lines)} whole lines written, {said} warnings"


def full_digest_cache() -> str:
    """The checkpoint's digest cannot be remembered."""
    with tempfile.TemporaryDirectory(prefix="quire-chaos-") as name, little_room(4096) as (home, limit, how):
        folder = Path(name) / "large"
        large_model(folder, 80 * 2**20)
        for path in folder.iterdir():
            os.utime(path, (time.time() - 3600,) * 2)
        time.sleep(11.0)  # what was written just now is not remembered in any case
        (home / "fill").write_bytes(b"x" * (4096 if limit is None else 0))
        with served(str(folder), *QUIET, env={"HOME": str(home)}, before=limit) as server:
            check(complete(server.port)[0] == 200, "not answered")
            check("will be hashed again" in server.said, f"it does not say so: {server.said[-300:]}")
            check("Traceback" not in server.said, "a traceback")
        return f"{how}: a note, serves"


def read_only_cache() -> str:
    """The folder for quantized weights cannot be written."""
    with (
        tmpfs(2**20, read_only=True) as folder,
        served(*QUIET, "--quantization", "int8", "--quantization-cache", str(folder)) as server,
    ):
        check(complete(server.port)[0] == 200, "not answered")
        check("are not kept" in server.said and "Read-only" in server.said, f"it says: {server.said[-300:]}")
        return "a warning that names the reason, serves"


def read_only_request_log() -> str:
    """A request log that cannot be written: whoever asked for it must not believe there is one."""
    with tmpfs(2**20, read_only=True) as folder:
        try:
            with served(*QUIET, "--request-log", str(folder / "log")):
                check(False, "it serves without the log")
        except DidNotStart as problem:
            check("exit code 2" in str(problem) and "--request-log" in str(problem), str(problem)[-300:])
            check("Traceback" not in str(problem), "a traceback")
        return "exit code 2, names the option"


def spoilt_cache() -> str:
    """A cache of quantized weights with a byte changed, then cut: it is made anew, and the answers are the same."""
    with tempfile.TemporaryDirectory(prefix="quire-chaos-") as name:
        options = (*QUIET, "--quantization", "int8", "--quantization-cache", name)
        answers = []
        for damage in (None, "flip", "cut"):
            files = list(Path(name).glob("*.quire"))
            if damage is not None:
                check(len(files) == 1, f"{len(files)} files in the cache")
                _damage(files[0], damage)
            with served(*options) as server:
                status, answer = complete(server.port)
                check(status == 200, f"after {damage}: {status}")
                check(
                    damage is None or "quantized again" in server.said, f"after {damage} it says {server.said[-300:]}"
                )
                answers.append(answer["choices"][0]["text"])
        check(len(set(answers)) == 1, f"answers differ: {answers}")
        return "a flipped byte and a cut file are found, quantized again, the same answers"


def _damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data if how == "flip" else data[: len(data) // 3])


def vanished_folder() -> str:
    """The model's folder is removed while it serves."""
    import shutil

    from chaos.places import model

    with model() as folder, served(str(folder), *QUIET) as server:
        before = complete(server.port)[1]["choices"]
        streams, _ = during(server.port, Load(num_streams=4), lambda: shutil.rmtree(folder))
        check(not streams.harmed, told(streams))
        check(complete(server.port)[1]["choices"] == before, "another answer")
        check(asking.get(server.port, "/health") == 200, "/health")
        return f"{told(streams)}; the same answers"


CASES = (
    Case("disk full: quantization cache", "a warning, no part of a file, serves", full_quantization_cache),
    Case("disk full: request log", "a warning, whole lines only, every request is answered", full_request_log),
    Case("disk full: digest cache", "a note, serves", full_digest_cache),
    Case("read-only: quantization cache", "a warning that names the reason, serves", read_only_cache),
    Case("read-only: request log", "exit code 2 that names the option", read_only_request_log),
    Case("spoilt quantization cache", "found, made anew, the same answers", spoilt_cache),
    Case("model folder vanishes", "nobody notices", vanished_folder),
)
