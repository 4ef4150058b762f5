"""`quire serve --device torch:cpu`, a whole server whose engine computes with torch, beside one that does not; and a
GPU that was asked for and is not there."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import openai
import pytest

from quire.hardware import probe
from tests.cli.test_cli_serve import PATIENCE_S, Served, command, environment, fail, needs_model, served

pytest.importorskip("torch")

OPTIONS = ("--dtype", "float32", "--threads", "1", "--kv-cache-memory-bytes", str(64 * 2**20))
WORDS = {"type": "object", "properties": {"name": {"type": "string"}, "size": {"enum": [1, 2, 3]}},
         "required": ["name", "size"], "additionalProperties": False}  # fmt: skip
ASKED: tuple[dict[str, Any], ...] = (
    {"temperature": 0, "logprobs": True, "top_logprobs": 3},
    {"temperature": 0.9, "seed": 7, "n": 3, "top_p": 0.8, "frequency_penalty": 0.5},
    {"temperature": 0.7, "seed": 1, "logit_bias": {"5": 3.0}, "presence_penalty": 0.4},
    {"temperature": 0, "response_format": {"type": "json_schema", "json_schema": {"name": "w", "schema": WORDS}}},
)


def asked(server: Served) -> list[Any]:
    client = openai.OpenAI(base_url=server.url, api_key="none", timeout=PATIENCE_S)
    said = []
    for how in ASKED:
        answer = client.chat.completions.create(
            model="default", messages=[{"role": "user", "content": "Hello! Who are you?"}], max_tokens=24, **how
        )
        told = [
            (choice.message.content, choice.finish_reason, [each.token for each in (choice.logprobs.content or [])])
            if choice.logprobs is not None
            else (choice.message.content, choice.finish_reason)
            for choice in answer.choices
        ]
        said.append((told, answer.usage.completion_tokens if answer.usage else 0))
    return said


@needs_model
def test_a_server_over_torch_says_what_one_on_the_cpu_says() -> None:
    with served("--device", "torch:cpu", *OPTIONS) as server:
        server.wait_for(r"^machine .* as torch:cpu$")
        over_torch = asked(server)
    with served("--device", "cpu", *OPTIONS) as server:
        assert asked(server) == over_torch
    assert json.loads(over_torch[3][0][0][0]).keys() == {"name", "size"}


@needs_model
def test_doctor_tells_the_device_and_its_kernels() -> None:
    done = subprocess.run(
        command("doctor", "--json", "--device", "torch:cpu", *OPTIONS),
        env=environment(),
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["device"] == report["plan"]["device"] == "torch:cpu"
    assert {row["op"]: row["kernel"] for row in report["kernels"]}["attention"] == "torch/attention"
    assert report["check"]["ok"]
    assert report["versions"]["torch"] != "missing"
    assert "torch" in report["receipt"]["isa"]


@needs_model
@pytest.mark.skipif(bool(probe().accelerators), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    code, said = fail("serve", "--device", "cuda")
    assert code == 2
    assert "--device cuda was asked for, and this machine shows no NVIDIA GPU" in said
    assert "nvidia-smi" in said
