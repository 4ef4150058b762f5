"""Quantized models against float models of the same numbers: weights unpacked, written as a checkpoint, read exactly.

What is left between the two is the rounding of activations to 8 bits.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from quire.model_spec import ModelSpec, read_model_spec
from quire.models import Model
from quire.ops.device import Device, available_isas
from quire.ops.linear import unpack
from quire.plan import weight_bytes
from quire.precision import Precision
from tests.models.stage import Stage
from tests.models.tiny import make_tiny

pytest.importorskip("transformers")
package = pytest.importorskip("safetensors.numpy")

INT8, INT4 = Precision("int8", 128), Precision("int4", 32)
PRECISIONS = [
    INT8,
    Precision("int8"),
    Precision("int8", 32),
    INT4,
    Precision("int4", 128),
    Precision("int4", 64, False),
]
BIASED = {"llama": {"attention_bias": True, "mlp_bias": True}, "qwen2": {}, "qwen3": {}}
IDS = [random.Random(place).randrange(300) for place in range(60)]


def unpacked(model: Model, device: Device, spec: ModelSpec) -> dict[str, np.ndarray]:
    """The model's matrices under the checkpoint's names, in float32."""
    found = {"model.embed_tokens.weight": unpack(device, model.embedding.weight)}
    if not spec.tied_head:
        found["lm_head.weight"] = unpack(device, model.head.weight)
    for layer, block in enumerate(model.blocks):
        qkv = unpack(device, block.attention.qkv.weight)
        q, k, v = np.split(qkv, [spec.q_size, spec.q_size + spec.kv_size])
        gate, up = np.split(unpack(device, block.mlp.gate_up.weight), 2)
        output, down = (unpack(device, each.weight) for each in (block.attention.output, block.mlp.down))
        attention = {"q_proj": q, "k_proj": k, "v_proj": v, "o_proj": output}
        mlp = {"gate_proj": gate, "up_proj": up, "down_proj": down}
        prefix = f"model.layers.{layer}"
        found |= {f"{prefix}.self_attn.{name}.weight": array for name, array in attention.items()}
        found |= {f"{prefix}.mlp.{name}.weight": array for name, array in mlp.items()}
    return found


def checkpoint_of(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor in float32."""
    tensors = pytest.importorskip("safetensors.torch").load_file(folder / "model.safetensors")
    return {name: tensor.float().numpy() for name, tensor in tensors.items()}


def float_logits(folder: Path, stage: Stage) -> np.ndarray:
    """What an exact model of the same numbers answers; the folder's checkpoint is replaced."""
    tensors = checkpoint_of(folder)
    matrices = {
        name: np.ascontiguousarray(array) for name, array in unpacked(stage.model, stage.device, stage.spec).items()
    }
    assert set(matrices) == {name for name, array in tensors.items() if array.ndim == 2}
    package.save_file({**tensors, **matrices}, folder / "model.safetensors", metadata={"format": "pt"})
    with Stage(folder) as exact:
        return exact.run([(0, IDS)])


def assert_near(ours: np.ndarray, exact: np.ndarray, mean: float = 0.03, largest: float = 0.25) -> None:
    """In parts of the logits' spread."""
    assert exact.std() > 1, "logits that are all alike would prove nothing"
    error = np.abs(ours - exact) / exact.std()
    assert error.max() > 1e-6, "activations were not rounded at all"
    assert error.mean() < mean
    assert error.max() < largest


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("precision", [INT8, INT4], ids=str)
@pytest.mark.parametrize("family", BIASED)
def test_every_family_computes_what_its_weights_say(
    tmp_path: Path, family: str, precision: Precision, tied: bool
) -> None:
    folder = make_tiny(tmp_path, family, dtype="bfloat16", tie_word_embeddings=tied, **BIASED[family])
    with Stage(folder, precision=precision) as stage:
        assert_near(stage.run([(0, IDS)]), float_logits(folder, stage))


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
def test_every_grouping_over_inputs_that_no_group_divides(tmp_path: Path, precision: Precision) -> None:
    folder = make_tiny(tmp_path, "qwen3", hidden_size=180, intermediate_size=330, vocab_size=301)
    with Stage(folder, precision=precision) as stage:
        assert_near(stage.run([(0, IDS)]), float_logits(folder, stage))


@pytest.mark.parametrize("precision", [INT8, INT4], ids=str)
def test_every_instruction_set_agrees(tmp_path: Path, precision: Precision) -> None:
    folder = make_tiny(tmp_path, "llama")
    found = []
    for isa in available_isas():
        with Stage(folder, isa=isa, threads=2, precision=precision) as stage:
            found.append(stage.run([(0, IDS)]))
    for logits in found[:-1]:
        assert_near(logits + 1e-5, found[-1])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_quantized_weights_are_near_the_checkpoints(tmp_path: Path, dtype: str) -> None:
    """Normal numbers: steps of 1/127 and 1/8 of a group's largest, a third of a step off in the mean."""
    folder = make_tiny(tmp_path, "qwen2", dtype=dtype)
    stored = checkpoint_of(folder)
    for precision, error in ((INT8, 0.009), (INT4, 0.1)):
        with Stage(folder, precision=precision) as stage:
            for name, array in unpacked(stage.model, stage.device, stage.spec).items():
                assert (array - stored[name]).std() < error * stored[name].std(), name


def test_the_head_may_be_finer_than_the_layers(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path, "llama", tie_word_embeddings=True)
    with Stage(folder, precision=INT4, head_precision=INT8) as stage:
        assert (stage.model.head.weight.dtype, stage.model.blocks[0].mlp.down.weight.dtype) == ("int8", "int4")
        assert stage.model.embedding.weight is stage.model.head.weight
        assert_near(stage.run([(0, IDS)]), float_logits(folder, stage))


@pytest.mark.parametrize("head", [Precision("bfloat16"), Precision("float32"), INT8, INT4], ids=str)
@pytest.mark.parametrize("precision", [Precision("bfloat16"), Precision("float32"), *PRECISIONS], ids=str)
@pytest.mark.parametrize("tied", [False, True])
def test_the_plan_counts_the_bytes_that_the_weights_hold(
    shapes: dict[bool, Path], tied: bool, precision: Precision, head: Precision
) -> None:
    spec = read_model_spec(shapes[tied])
    planned = weight_bytes(spec, precision, head)
    with Stage(shapes[tied], precision=precision, head_precision=head) as stage:
        model = stage.model
        layers = [
            each.weight.nbytes
            for block in model.blocks
            for each in (block.attention.qkv, block.attention.output, block.mlp.gate_up, block.mlp.down)
        ]
        assert planned.layers == sum(layers)
        assert planned.embeddings == model.head.weight.nbytes * (1 if tied else 2)
        assert planned.per_token == sum(layers) + model.head.weight.nbytes + planned.vectors


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Sizes that fill no panel and no group."""
    sizes = {"hidden_size": 77, "intermediate_size": 131, "vocab_size": 301, "num_hidden_layers": 2}
    return {
        tied: make_tiny(tmp_path_factory.mktemp("shapes"), "qwen3", tie_word_embeddings=tied, **sizes)
        for tied in (False, True)
    }
