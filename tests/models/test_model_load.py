"""From folder to model: progress, tied heads, and folders whose parts do not fit together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quire.errors import BrokenCheckpoint, InvalidSetting
from quire.layers.source import to_float32
from quire.model_spec import FAMILIES, read_model_spec
from quire.models import Model, load
from quire.ops.device import Device
from quire.precision import Precision
from quire.weights.checkpoint import Checkpoint
from tests.models.stage import Stage
from tests.models.tiny import edit_config, make_tiny

pytest.importorskip("transformers")
package = pytest.importorskip("safetensors.numpy")


@pytest.fixture
def device() -> Any:
    with Device(1) as device:
        yield device


def build(folder: Path, device: Device, **options: Any) -> Model:
    return load(read_model_spec(folder), Checkpoint.open(folder), device, Precision("float32"), **options)


def rewrite(folder: Path, **changes: np.ndarray | None) -> Path:
    """Replace tensors (dots written as two underscores); None removes one."""
    tensors = package.load_file(folder / "model.safetensors")
    for name, array in changes.items():
        tensors.pop(name.replace("__", "."), None)
        if array is not None:
            tensors[name.replace("__", ".")] = array
    package.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def refusal(folder: Path, device: Device) -> str:
    with pytest.raises(BrokenCheckpoint) as caught:
        build(folder, device)
    return str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_byte_is_reported_once(tmp_path: Path, device: Device, family: str) -> None:
    folder = make_tiny(tmp_path, family, max_shard_size="30KB")
    seen: list[tuple[int, int]] = []
    build(folder, device, progress=lambda done, total: seen.append((done, total)))
    total = Checkpoint.open(folder).num_bytes
    assert {each for _, each in seen} == {total}
    done = [each for each, _ in seen]
    assert done == sorted(done)
    assert done[-1] == total
    assert len(seen) > 10


def test_number_of_parameters_is_what_the_file_holds(tmp_path: Path) -> None:
    for number, (family, options) in enumerate(
        [("llama", {"attention_bias": True, "mlp_bias": True}), ("qwen2", {"tie_word_embeddings": True}), ("qwen3", {})]
    ):
        folder = make_tiny(tmp_path / str(number), family, **options)
        assert read_model_spec(folder).num_parameters * 4 == Checkpoint.open(folder).num_bytes


def test_missing_and_left_over_tensors_are_named_together(tmp_path: Path, device: Device) -> None:
    folder = rewrite(
        make_tiny(tmp_path),
        model__layers__1__mlp__up_proj__weight=None,
        model__norm__weight=np.ones(47, np.float32),
        model__extra__weight=np.ones(3, np.float32),
    )
    message = refusal(folder, device)
    assert "model.layers.1.mlp.up_proj.weight is missing" in message
    assert "model.norm.weight has shape [47], its config asks for [48]" in message
    assert "model.extra.weight belongs to no layer" in message


def test_biases_that_the_config_denies_are_left_over(tmp_path: Path, device: Device) -> None:
    folder = make_tiny(tmp_path, "llama", attention_bias=True)
    message = refusal(edit_config(folder, attention_bias=False), device)
    assert "model.layers.0.self_attn.q_proj.bias belongs to no layer" in message


def test_old_rotary_buffers_are_nothing(tmp_path: Path, device: Device) -> None:
    folder = rewrite(make_tiny(tmp_path), model__layers__0__self_attn__rotary_emb__inv_freq=np.ones(8, np.float32))
    build(folder, device)


def test_an_untied_head_must_be_there(tmp_path: Path, device: Device) -> None:
    folder = edit_config(make_tiny(tmp_path, tie_word_embeddings=True), tie_word_embeddings=False)
    assert "lm_head.weight is missing" in refusal(folder, device)


@pytest.mark.parametrize("stored", ["embedding", "head", "both"])
def test_a_tied_head_under_either_name(tmp_path: Path, stored: str) -> None:
    folder = make_tiny(tmp_path, tie_word_embeddings=True)
    with Stage(folder) as stage:
        expected = stage.run([(0, [1, 2, 3])])
    weight = package.load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    if stored == "head":
        rewrite(folder, model__embed_tokens__weight=None)
    if stored != "embedding":
        rewrite(folder, lm_head__weight=weight)
    with Stage(folder) as stage:
        assert np.array_equal(stage.run([(0, [1, 2, 3])]), expected)


def test_a_tied_head_that_differs_is_refused(tmp_path: Path, device: Device) -> None:
    folder = make_tiny(tmp_path, tie_word_embeddings=True)
    message = refusal(rewrite(folder, lm_head__weight=np.zeros((300, 48), np.float32)), device)
    assert "two different tensors" in message
    assert "tie_word_embeddings" in message


@pytest.mark.parametrize("key", ["hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size", "head_dim"])
def test_a_config_of_another_model_is_one_sentence(tmp_path: Path, device: Device, key: str) -> None:
    folder = make_tiny(tmp_path)
    value = json.loads((folder / "config.json").read_text())[key]
    message = refusal(edit_config(folder, **{key: 2 * value}), device)
    assert "do not fit its config" in message
    assert "Traceback" not in message


def test_unknown_formats_are_refused(tmp_path: Path, device: Device) -> None:
    folder = make_tiny(tmp_path)
    for dtype in ("int3", "float16"):
        with pytest.raises(InvalidSetting, match="bfloat16, float32, int8, int4"):
            load(read_model_spec(folder), Checkpoint.open(folder), device, Precision(dtype))


def test_every_family_has_its_picture() -> None:
    folder = Path(__file__).resolve().parents[2] / "quire" / "models"
    pictures = {path.stem for path in folder.glob("*.py")} - {"__init__", "blocks"}
    assert pictures == set(FAMILIES)
    assert all(len((folder / f"{name}.py").read_text().splitlines()) <= 150 for name in pictures)


def test_widening_is_exact() -> None:
    bits = np.array([0x0000, 0x8000, 0x3F80, 0x7F80, 0x0001, 0xFF7F], np.uint16)
    torch = pytest.importorskip("torch")
    expected = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16).float().numpy()
    assert np.array_equal(to_float32(bits), expected)
    assert to_float32(np.array([0.1], np.float16))[0] == np.float32(np.float16(0.1))
