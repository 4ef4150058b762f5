"""`quire serve` as a person meets it: a real process, a real port, the openai package, every failure at start."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from quire.cli.resolve import BUNDLED

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120
needs_model = pytest.mark.skipif(not (BUNDLED / "config.json").is_file(), reason="the bundled model is not built")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "quire", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def fail(*arguments: str) -> tuple[int, str]:
    """Exit code and stderr of a command that is expected to end by itself; stdout stays empty."""
    done = subprocess.run(
        command(*arguments),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        cwd=ROOT,
        check=False,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


class Served:
    """A running `quire serve` on a free port; its stderr is read as it comes."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            command("serve", "--port", "0", *arguments), env=environment(), stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
        self.lines: list[str] = []
        self._told = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = self.wait_for(r"^serving .* at (\S+)$").group(1)

    def wait_for(self, pattern: str) -> re.Match[str]:
        with self._told:
            found = self._told.wait_for(lambda: self._find(pattern) or self.process.poll() is not None, PATIENCE_S)
            match = self._find(pattern)
            assert found
            assert match is not None, "".join(self.lines)
            return match

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code

    def _find(self, pattern: str) -> re.Match[str] | None:
        return next((match for line in self.lines if (match := re.search(pattern, line.rstrip("\n")))), None)

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                with self._told:
                    self.lines.append(line)
                    self._told.notify_all()


@contextlib.contextmanager
def served(*arguments: str) -> Iterator[Served]:
    server = Served(*arguments)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait(PATIENCE_S)
        server._reader.join(PATIENCE_S)


def children(pid: int) -> list[int]:
    """Processes whose parent is `pid`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid:
                found.append(int(path.parent.name))
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@needs_model
def test_one_command_serves_and_the_openai_package_streams() -> None:
    with served("--threads", "1", "--served-model-name", "mine") as server:
        with openai.OpenAI(base_url=server.url, api_key="none") as client:
            stream = client.chat.completions.create(
                model="mine",
                messages=[{"role": "user", "content": "Hello!"}],
                stream=True,
                max_tokens=20,
                temperature=0,
            )
            chunks = list(stream)
            assert [model.id for model in client.models.list()] == ["mine"]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text.strip()
        assert chunks[-1].choices[0].finish_reason in ("stop", "length")
        (engine,) = children(server.process.pid)
        assert Path(f"/proc/{engine}/comm").read_text().strip() == "quire-engine"
        assert server.end(signal.SIGINT) == 130
        assert not is_alive(engine)
        told = "".join(server.lines)
        for word in ("model ", "machine ", "memory ", "batches ", "kernels ", "serving ", "curl "):
            assert word in told
        assert "Traceback" not in told


@needs_model
def test_sigterm_is_a_clean_end_and_a_dead_engine_is_replaced() -> None:
    with served("--threads", "1") as server:
        assert server.end(signal.SIGTERM) == 0
    with served("--threads", "1") as server:
        (engine,) = children(server.process.pid)
        os.kill(engine, signal.SIGKILL)
        server.wait_for("engine lost cause=killed how=")
        server.wait_for("engine replaced cause=killed")
        assert children(server.process.pid) != [engine]
        assert server.end(signal.SIGTERM) == 0


def test_a_public_address_without_a_key_is_refused_before_a_model_is_loaded() -> None:
    code, said = fail("serve", "/nowhere/model", "--host", "0.0.0.0", "--port", "0")
    assert code == 2
    assert "0.0.0.0 without a key" in said
    assert said.count("\n") == 1


@needs_model
def test_a_public_address_without_a_key_is_opened_when_told_so() -> None:
    with served("--threads", "1", "--host", "0.0.0.0", "--allow-unauthenticated") as server:
        server.wait_for("WARNING .*--allow-unauthenticated")
        assert server.url.startswith("http://127.0.0.1:")


@needs_model
def test_a_taken_port_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = fail("serve", "--port", str(port))
    assert code == 2
    assert f"cannot listen on 127.0.0.1:{port}" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a..b", "256.1.1.1"])
def test_a_host_that_is_none_is_one_sentence(host: str) -> None:
    code, said = fail("serve", "--host", host, "--port", "0")
    assert code == 2
    assert said.startswith("quire: ")
    assert said.count("\n") == 1


def test_a_missing_folder_is_one_sentence() -> None:
    code, said = fail("serve", "/nowhere/model")
    assert code == 2
    assert "no such model folder" in said
    assert said.count("\n") == 1


def damaged(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(BUNDLED, folder)
    return folder


def truncate(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def forget_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def spoil_header(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:8] + b"x" * 64 + data[72:])


def misshape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["intermediate_size"] += 64
    (folder / "config.json").write_text(json.dumps(config))


def rename_architecture(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mamba", "architectures": ["MambaForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config))


def break_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "llama"')


def break_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def break_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{% for m in messages %}")


HARMS = (
    truncate,
    forget_weights,
    spoil_header,
    misshape,
    rename_architecture,
    break_config,
    break_tokenizer,
    break_template,
)


@needs_model
@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_a_model_that_cannot_be_served_is_one_sentence_and_no_server(harm: object, tmp_path: Path) -> None:
    folder = damaged(tmp_path)
    assert callable(harm)
    harm(folder)
    code, said = fail("serve", str(folder), "--port", "0", "--threads", "1")
    assert code == 2, said
    assert "Traceback" not in said
    said_by_us = [line for line in said.splitlines() if not line.startswith("quire-grammars: ")]  # a child may be later
    assert said_by_us[-1].startswith("quire: ")
    assert "serving" not in said


@needs_model
def test_doctor_reports_and_checks() -> None:
    done = subprocess.run(
        command("doctor", "--json", "--threads", "1"),
        env=environment(),
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["check"]["ok"]
    assert report["isa"]["chosen"] in report["isa"]["available"]
    assert {"weights_bytes", "kv_cache_bytes", "activations_bytes", "planned_bytes"} <= report["memory"].keys()
    assert all(row["why"] for row in report["kernels"])
    assert report["versions"]["numpy"]


@needs_model
def test_quantized_weights_are_told_and_kept(tmp_path: Path) -> None:
    options = ("--threads", "1", "--quantization", "int4", "--quantization-cache", str(tmp_path / "kept"))
    with served(*options) as server:
        told = server.wait_for(
            r"^weights  int4, groups of 32; embedding and head int8, one scale a row; .* a token reads"
        )
        assert "MiB" in told.string
        server.wait_for("^note     quantized weights kept for the next start: ")
    done = subprocess.run(
        command("doctor", "--json", *options),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["weights"]["layers"] == "int4, groups of 32"
    assert report["weights"]["embedding_and_head"] == "int8, one scale a row"
    assert report["weights"]["read_per_token_bytes"] <= report["memory"]["weights_bytes"]
    assert report["notes"][0].startswith("quantized weights read from ")


def test_options_that_contradict_each_other_are_one_sentence() -> None:
    code, said = fail("serve", "--port", "0", "--dtype", "float32", "--quantization", "int4")
    assert code == 2
    assert "--dtype float32 and --quantization contradict each other" in said
    assert said.count("\n") == 1


@needs_model
def test_an_instruction_set_that_is_none_is_refused() -> None:
    done = subprocess.run(
        command("run", "hi"),
        env={**environment(), "QUIRE_CPU_ISA": "sse9"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 2
    assert "sse9" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_needs_none_of_the_heavy_parts() -> None:
    """`quire --help` imports no array library, no web framework, no tokenizer."""
    code = "import sys, quire.cli.main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {
        "numpy",
        "starlette",
        "uvicorn",
        "tokenizers",
        "jinja2",
        "httpx",
        "huggingface_hub",
        "pydantic",
    }
