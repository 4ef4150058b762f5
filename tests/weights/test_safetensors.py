"""Every class of damage to a safetensors file is one clear sentence, and nothing but that."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quire.errors import BrokenCheckpoint
from quire.limits import MAX_TENSOR_HEADER_BYTES
from quire.weights.checkpoint import Checkpoint
from quire.weights.safetensors import open_tensor_file
from tests.weights.writing import encode, header_of, write

TENSORS = {
    "a": ("F32", np.arange(6, dtype=np.float32).reshape(2, 3)),
    "b": ("BF16", np.arange(4, dtype=np.uint16)),
    "c": ("F16", np.arange(8, dtype=np.float16).reshape(2, 2, 2)),
    "empty": ("I64", np.zeros((0, 5), np.int64)),
}
HEADER, DATA = header_of(TENSORS)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = open_tensor_file(write(tmp_path / "x.safetensors", TENSORS))
    assert set(file.tensors) == set(TENSORS)
    for name, (dtype, array) in TENSORS.items():
        tensor = file.tensors[name]
        assert (tensor.dtype, tensor.shape) == (dtype, array.shape)
        assert file.data[tensor.begin : tensor.end] == array.tobytes()


def test_what_the_safetensors_package_writes_is_read(tmp_path: Path) -> None:
    package = pytest.importorskip("safetensors.numpy")
    arrays = {"one": np.ones((3, 5), np.float32), "two": np.full((7,), 2, np.float16), "scalar": np.float32(3)[()]}
    arrays["scalar"] = np.array(3, np.float32)
    package.save_file(arrays, tmp_path / "model.safetensors", metadata={"format": "pt"})
    checkpoint = Checkpoint.open(tmp_path)
    for name, array in arrays.items():
        assert np.array_equal(checkpoint.take(name, array.shape), array)


def changed(**tensors: Any) -> dict[str, Any]:
    """The good header with some entries replaced, or removed by None."""
    return {key: value for key, value in {**HEADER, **tensors}.items() if value is not None}


def moved(name: str, begin: int, end: int) -> dict[str, Any]:
    return changed(**{name: {**HEADER[name], "data_offsets": [begin, end]}})


DAMAGE: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty file": (lambda: b"", "truncated"),
    "seven bytes": (lambda: b"\0" * 7, "truncated"),
    "header longer than the file": (lambda: encode(HEADER, DATA)[:40], "truncated inside its header"),
    "header of 2^63 bytes": (lambda: struct.pack("<Q", 2**63) + b"{}", "not a safetensors file"),
    "header over the limit": (lambda: struct.pack("<Q", MAX_TENSOR_HEADER_BYTES + 1) + b"{}", "not a safetensors file"),
    "last byte missing": (lambda: encode(HEADER, DATA)[:-1], "truncated"),
    "all data missing": (lambda: encode(HEADER, b""), "truncated"),
    "one byte too many": (lambda: encode(HEADER, DATA + b"x"), "belong to no tensor"),
    "not JSON": (lambda: encode(b'{"a": ', DATA), "not valid JSON"),
    "not UTF-8": (lambda: encode(b'{"\xff": 1}', DATA), "not valid JSON"),
    "a list": (lambda: encode(b"[]", DATA), "JSON object"),
    "deep nesting": (lambda: encode(b'{"a":' + b"[" * 100000 + b"]" * 100000 + b"}", DATA), "not valid JSON"),
    "a number of a million digits": (lambda: encode(b'{"a":' + b"9" * 1000000 + b"}", DATA), "not valid JSON"),
    "entry is a list": (lambda: encode(changed(a=[1]), DATA), "described wrongly"),
    "entry without dtype": (
        lambda: encode(changed(a={"shape": [], "data_offsets": [0, 4]}), DATA),
        "described wrongly",
    ),
    "entry with more": (lambda: encode(changed(a={**HEADER["a"], "more": 1}), DATA), "described wrongly"),
    "unknown dtype": (lambda: encode(changed(a={**HEADER["a"], "dtype": "F31"}), DATA), "unknown number format"),
    "dtype is a list": (lambda: encode(changed(a={**HEADER["a"], "dtype": []}), DATA), "unknown number format"),
    "wider dtype": (lambda: encode(changed(a={**HEADER["a"], "dtype": "F64"}), DATA), "does not fill its bytes"),
    "other shape": (lambda: encode(changed(a={**HEADER["a"], "shape": [2, 4]}), DATA), "does not fill its bytes"),
    "negative shape": (lambda: encode(changed(a={**HEADER["a"], "shape": [-2, -3]}), DATA), "make no sense"),
    "shape of floats": (lambda: encode(changed(a={**HEADER["a"], "shape": [2.0, 3.0]}), DATA), "make no sense"),
    "shape of booleans": (lambda: encode(changed(a={**HEADER["a"], "shape": [True, 6]}), DATA), "make no sense"),
    "shape that wraps in 64 bit": (
        lambda: encode(changed(a={**HEADER["a"], "shape": [2**62, 4, 6]}), DATA),
        "does not fill its bytes",
    ),
    "shape with hundreds of axes": (lambda: encode(changed(a={**HEADER["a"], "shape": [1] * 300}), DATA), "no sense"),
    "offsets descend": (lambda: encode(moved("a", 24, 0), DATA), "make no sense"),
    "three offsets": (lambda: encode(changed(a={**HEADER["a"], "data_offsets": [0, 24, 24]}), DATA), "make no sense"),
    "offsets negative": (lambda: encode(moved("a", -24, 0), DATA), "make no sense"),
    "offsets beyond 64 bit": (lambda: encode(moved("a", 2**64, 2**64 + 24), DATA), "make no sense"),
    "a hole": (lambda: encode(changed(b=None), DATA), "does not begin where"),
    "an overlap": (lambda: encode(moved("b", 20, 28), DATA), "does not begin where"),
    "past the end": (lambda: encode(moved("c", 40, 56), DATA), "does not begin where"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(tmp_path: Path, damage: str) -> None:
    make, said = DAMAGE[damage]
    (tmp_path / "model.safetensors").write_bytes(make())
    with pytest.raises(BrokenCheckpoint) as caught:
        Checkpoint.open(tmp_path)
    message = str(caught.value)
    assert said in message
    assert "model.safetensors" in message
    assert len(message) < 1500
    assert caught.value.exit_code == 2


GOOD = encode(HEADER, DATA)
flips = st.lists(st.tuples(st.integers(0, len(GOOD) - len(DATA) - 1), st.integers(1, 255)), min_size=1, max_size=4)


@given(flips, st.integers(0, 3 * len(DATA)))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_damage_is_refused_or_read_whole(tmp_path: Path, flips: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(GOOD)
    for place, mask in flips:
        data[place] ^= mask
    (tmp_path / "model.safetensors").write_bytes(data[: len(data) - cut if cut < len(DATA) else None])
    read_all_or_refuse(tmp_path)


@given(st.binary(max_size=200), st.booleans())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_bytes_are_refused(tmp_path: Path, data: bytes, framed: bool) -> None:
    (tmp_path / "model.safetensors").write_bytes(encode(data, b"") if framed else data)
    read_all_or_refuse(tmp_path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["a", "b", "c"]), st.sampled_from(["dtype", "shape", "data_offsets"]), json_values)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_json_in_an_entry_is_refused(tmp_path: Path, name: str, key: str, value: Any) -> None:
    header = {**HEADER, name: {**HEADER[name], key: value}}
    (tmp_path / "model.safetensors").write_bytes(encode(json.dumps(header).encode(), DATA))
    read_all_or_refuse(tmp_path)


def read_all_or_refuse(folder: Path) -> None:
    """Either one typed refusal, or every tensor can be touched to its last byte."""
    said = ""
    try:
        checkpoint = Checkpoint.open(folder)
        for name, (_, tensor) in checkpoint.tensors.items():
            checkpoint.take(name, tensor.shape).tobytes()
    except BrokenCheckpoint as error:
        said = str(error)
    assert len(said) < 1500
