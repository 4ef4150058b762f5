"""Loading holds at most the larger of the two forms: pages of the file are let go as its tensors are packed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from quire.kernels.reference.bf16 import to_bits
from quire.model_spec import read_model_spec

ROOT = Path(__file__).resolve().parents[2]
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 16000,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 5,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}
SCRIPT = """
import sys
from pathlib import Path
from quire.engine.build import build_engine
from quire.hardware import probe
from quire.model_spec import read_model_spec
from quire.plan import plan
from quire.settings import EngineSettings

def resident(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

folder = Path(sys.argv[1])
options = dict(quantization=sys.argv[2], quantization_cache=sys.argv[3] or None)
settings = EngineSettings(**options, max_num_batched_tokens=16, max_num_seqs=1)
chosen = plan(settings, probe(), read_model_spec(folder))
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = resident("VmRSS")
built = build_engine(chosen, folder)
print(resident("VmHWM") - before, chosen.weights.total, chosen.activation_bytes)
"""


def tensors(num_layers: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "model.embed_tokens.weight", (16000, 1024)
    for layer in range(num_layers):
        prefix = f"model.layers.{layer}"
        for name, outputs in (("q_proj", 1024), ("k_proj", 512), ("v_proj", 512), ("o_proj", 1024)):
            yield f"{prefix}.self_attn.{name}.weight", (outputs, 1024)
        for name, shape in (("gate_proj", (3072, 1024)), ("up_proj", (3072, 1024)), ("down_proj", (1024, 3072))):
            yield f"{prefix}.mlp.{name}.weight", shape
        yield f"{prefix}.input_layernorm.weight", (1024,)
        yield f"{prefix}.post_attention_layernorm.weight", (1024,)
    yield "model.norm.weight", (1024,)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of 79 million random parameters in bfloat16."""
    path = tmp_path_factory.mktemp("large")
    (path / "config.json").write_text(json.dumps(CONFIG))
    noise = to_bits(np.random.default_rng(1).standard_normal(1 << 20, np.float32) / 32).tobytes()
    header, end = {}, 0
    for name, shape in tensors(CONFIG["num_hidden_layers"]):
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with (path / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for begin in range(0, end, len(noise)):
            file.write(noise[: min(len(noise), end - begin)])
    return path


def peak(folder: Path, quantization: str, cache: str = "") -> tuple[int, int]:
    """What loading added at most to the resident memory, arena excepted, and the bytes of the weights as planned."""
    command = [sys.executable, "-c", SCRIPT, str(folder), quantization, cache]
    home = {**os.environ, "HOME": str(folder)}  # where the weights' hashes are remembered
    done = subprocess.run(command, cwd=ROOT, env=home, capture_output=True, text=True, check=True, timeout=120)
    added, planned, activations = (int(number) for number in done.stdout.split())
    return added - activations, planned


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_quantizing_never_holds_more_than_the_checkpoint(folder: Path, tmp_path: Path, quantization: str) -> None:
    checkpoint_bytes = 2 * read_model_spec(folder).num_parameters
    for cache in ("", str(tmp_path)):  # quantizing, then quantizing and writing
        added, planned = peak(folder, quantization, cache)
        assert planned < 0.65 * checkpoint_bytes
        assert planned * 0.9 < added < checkpoint_bytes
    added, _ = peak(folder, quantization, str(tmp_path))  # reading
    assert planned * 0.9 < added < planned * 1.15 + 2**23


def test_packing_holds_one_form_and_the_tensors_in_work(folder: Path) -> None:
    added, planned = peak(folder, "none")
    assert planned * 0.9 < added < planned * 1.15 + 2**23
