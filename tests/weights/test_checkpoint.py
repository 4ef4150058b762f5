"""One file or many, names and shapes: what is taken, what is missing, what is left."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from quire.errors import BrokenCheckpoint
from quire.weights.checkpoint import Checkpoint
from tests.weights.writing import encode, header_of, write

ONES = np.ones((2, 3), np.float32)
HALVES = np.full((4,), 0.5, np.float16)


def sharded(folder: Path, weight_map: dict[str, object] | None = None) -> Path:
    write(folder / "model-1.safetensors", {"a": ("F32", ONES)})
    write(folder / "model-2.safetensors", {"b": ("F16", HALVES)})
    named = {"a": "model-1.safetensors", "b": "model-2.safetensors"} if weight_map is None else weight_map
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": named}))
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(BrokenCheckpoint) as caught:
        Checkpoint.open(folder)
    return str(caught.value)


def test_shards_read_as_one(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(sharded(tmp_path))
    assert np.array_equal(checkpoint.take("a", (2, 3)), ONES)
    assert np.array_equal(checkpoint.take("b", (4,)), HALVES)
    assert checkpoint.num_bytes == 32
    assert checkpoint.has("a")
    assert not checkpoint.has("c")


def test_views_are_read_only_and_lie_in_the_file(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(sharded(tmp_path))
    view = checkpoint.take("a", (2, 3))
    assert not view.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 1


def test_an_unaligned_tensor_is_copied(tmp_path: Path) -> None:
    header, data = header_of({"b": ("BF16", np.array([7], np.uint16)), "a": ("F32", ONES)})
    for padding in range(4):
        text = json.dumps(header).encode() + b" " * padding
        (tmp_path / "model.safetensors").write_bytes(encode(text, data))
        view = Checkpoint.open(tmp_path).take("a", (2, 3))
        assert view.flags.aligned
        assert np.array_equal(view, ONES)


def test_released_tensors_can_be_read_again(tmp_path: Path) -> None:
    large = np.arange(100_000, dtype=np.float32)
    write(tmp_path / "model.safetensors", {"small": ("F16", HALVES), "large": ("F32", large)})
    checkpoint = Checkpoint.open(tmp_path)
    view = checkpoint.take("large", (100_000,))
    for name in ("large", "small", "large"):
        checkpoint.release(name)
        assert np.array_equal(view, large)


def test_no_weights(tmp_path: Path) -> None:
    assert "there are no weights" in refusal(tmp_path)
    assert "no such folder" in refusal(tmp_path / "absent")


def test_pickled_weights_are_never_opened(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")
    message = refusal(tmp_path)
    assert "pytorch_model.bin" in message
    assert "never opened" in message


def test_missing_shard_is_named(tmp_path: Path) -> None:
    (sharded(tmp_path) / "model-2.safetensors").unlink()
    assert "1 of 2 files of the checkpoint are missing; got model-2.safetensors" in refusal(tmp_path)


@pytest.mark.parametrize(
    "file", ["../model-1.safetensors", "/etc/passwd", "model-1.bin", 7, None, "", "x/model-1.safetensors"]
)
def test_index_may_point_nowhere_else(tmp_path: Path, file: object) -> None:
    assert "a file that cannot be" in refusal(sharded(tmp_path, {"a": file}))


def test_index_must_tell_the_truth(tmp_path: Path) -> None:
    wrong: dict[str, object] = {"a": "model-2.safetensors", "b": "model-2.safetensors"}
    assert "says that a is in model-2.safetensors" in refusal(sharded(tmp_path, wrong))
    assert "has no weight_map" in refusal(sharded(tmp_path, {}))


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    sharded(tmp_path)
    write(tmp_path / "model-2.safetensors", {"a": ("F32", ONES), "b": ("F16", HALVES)})
    assert "the tensor a is in two files" in refusal(tmp_path)


def test_everything_wrong_is_one_sentence(tmp_path: Path) -> None:
    write(
        tmp_path / "model.safetensors",
        {
            "a": ("F32", ONES),
            "ints": ("I32", np.zeros(2, np.int32)),
            "left": ("F16", HALVES),
            "model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", np.zeros(2, np.float32)),
        },
    )
    checkpoint = Checkpoint.open(tmp_path)
    with pytest.raises(BrokenCheckpoint) as caught:
        checkpoint.check({"a": (3, 2), "absent": (1,), "ints": (2,)})
    message = str(caught.value)
    assert "a has shape [2, 3], its config asks for [3, 2]" in message
    assert "absent is missing" in message
    assert "ints is stored as I32" in message
    assert "left belongs to no layer" in message
    assert "inv_freq" not in message


def test_a_long_list_is_cut_and_counted(tmp_path: Path) -> None:
    write(tmp_path / "model.safetensors", {"a": ("F32", ONES)})
    with pytest.raises(BrokenCheckpoint, match=r"name9 is missing; and 26 more\.") as caught:
        Checkpoint.open(tmp_path).check({f"name{count}": (1,) for count in range(35)})
    assert len(str(caught.value)) < 600


def test_take_refuses_what_check_names(tmp_path: Path) -> None:
    write(tmp_path / "model.safetensors", {"a": ("F32", ONES)})
    checkpoint = Checkpoint.open(tmp_path)
    checkpoint.check({"a": (2, 3)})
    with pytest.raises(BrokenCheckpoint, match="has shape"):
        checkpoint.take("a", (6,))
    with pytest.raises(BrokenCheckpoint, match="b is missing"):
        checkpoint.take("b", (6,))
