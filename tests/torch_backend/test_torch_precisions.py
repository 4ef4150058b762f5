"""Every precision of the torch backend on a whole model: the logits stay near float32's, and the engine answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quire.layers.forward import Forward
from quire.llm import LLM
from quire.model_spec import read_model_spec
from quire.models import load
from quire.ops.open_device import make_arena, make_kv_cache, open_device
from quire.precision import Precision
from quire.request import SamplingParams
from quire.weights.checkpoint import Checkpoint
from tests.models.stage import Stage
from tests.models.tiny import make_tiny

pytest.importorskip("torch")
pytest.importorskip("transformers")

NUM_TOKENS = 70


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(
        tmp_path_factory.mktemp("tiny"), "qwen3", hidden_size=128, intermediate_size=192, head_dim=32, dtype="bfloat16"
    )


@pytest.fixture(scope="module")
def exact(folder: Path) -> np.ndarray:
    with Stage(folder, "float32") as stage:
        return stage.run([(0, ids())])


def ids() -> list[int]:
    return np.random.default_rng(3).integers(0, 300, NUM_TOKENS).tolist()


def logits(folder: Path, dtype: str, precision: Precision, kv_dtype: str) -> np.ndarray:
    """[T, V] of one prompt, on shuffled blocks; the arena poisoned."""
    spec, device = read_model_spec(folder), open_device("torch:cpu", 1, dtype)
    model = load(spec, Checkpoint.open(folder), device, precision)
    kv = make_kv_cache(device, spec.num_layers, 8, 16, spec.num_kv_heads, spec.head_dim, kv_dtype)
    table = np.random.default_rng(1).permutation(8).astype(np.int32)[None]
    positions = np.arange(NUM_TOKENS, dtype=np.int32)
    arrays = device.put_all([
        np.array(ids(), np.int32), positions, table[0, positions // 16] * 16 + positions % 16,
        np.array([0, NUM_TOKENS], np.int32), np.array([NUM_TOKENS], np.int32), table,
    ])  # fmt: skip
    return device.fetch(model.forward(Forward(device, make_arena(device, poison=True), *arrays, kv)))


@pytest.mark.parametrize(
    ("dtype", "precision", "kv_dtype", "share"),
    [
        ("float32", Precision("float32"), "float32", 1e-4),
        ("bfloat16", Precision("bfloat16"), "bfloat16", 0.04),
        ("float16", Precision("float16"), "float16", 0.005),
        ("bfloat16", Precision("fp8"), "fp8", 0.12),
        ("float16", Precision("int8"), "int8", 0.04),
        ("bfloat16", Precision("int8", 128), "bfloat16", 0.05),
        ("bfloat16", Precision("int4", 32), "bfloat16", 0.25),
        ("bfloat16", Precision("int4", 32, symmetric=False), "fp8", 0.25),
    ],
    ids=str,
)
def test_logits_stay_near(
    folder: Path, exact: np.ndarray, dtype: str, precision: Precision, kv_dtype: str, share: float
) -> None:
    """`share` of the logits' spread bounds the mean error."""
    error = np.abs(logits(folder, dtype, precision, kv_dtype) - exact)
    assert np.isfinite(error).all()
    assert error.mean() < share * exact.std()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dtype": "float16", "quantization": "fp8", "kv_cache_dtype": "fp8"},
        {"quantization": "int8", "kv_cache_dtype": "int8"},
        {"quantization": "int4", "quantization_group_size": 64, "head_quantization": "int4"},
    ],
    ids=str,
)
def test_the_bundled_model_answers(options: dict[str, Any]) -> None:
    llm = LLM(device="torch:cpu", threads=1, kv_cache_memory_bytes=32 * 2**20, **options)
    params = SamplingParams(temperature=0.0, max_tokens=12, logprobs=1)
    first = llm.chat([{"role": "user", "content": "Hello! Who are you?"}], params)[0].outputs[0]
    assert len(first.token_ids) > 4
    assert first.cumulative_logprob is not None
    assert first.cumulative_logprob > -12, "a model that knows what it says"
    llm.close()
