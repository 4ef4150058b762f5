"""Where a plan computes: what auto becomes, what is refused, and how a GPU's memory is shared out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quire.accelerator import Accelerator
from quire.devices import GPU_RUNTIME_BYTES
from quire.errors import InvalidSetting, NotEnoughMemory
from quire.hardware import Hardware
from quire.llm import BUNDLED
from quire.model_spec import ModelSpec, read_model_spec
from quire.plan import kv_block_bytes, plan
from quire.settings import EngineSettings

CPU = Hardware("a processor", 4, 8 * 2**30, 4 * 2**30)
GPU = replace(CPU, accelerators=(Accelerator("NVIDIA H200", 140 * 2**30, 139 * 2**30, "570"),))
BOTH = replace(GPU, optional_extra=("flashinfer",))
BARE = replace(GPU, missing_extra=("triton",))
LLAMA_8B = {
    "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_layers": 32, "num_heads": 32,
    "num_kv_heads": 8, "head_dim": 128, "max_position_embeddings": 131072, "tied_head": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return read_model_spec(Path(BUNDLED))


@pytest.mark.parametrize(("hardware", "device"), [(CPU, "cpu"), (GPU, "cuda"), (BARE, "cpu")])
def test_auto_is_a_gpu_where_there_is_one_that_can_be_used(spec: ModelSpec, hardware: Hardware, device: str) -> None:
    chosen = plan(EngineSettings(), hardware, spec)
    assert chosen.device == device
    assert any("H200 is not used: triton missing" in note for note in chosen.notes) == (hardware is BARE)


@pytest.mark.parametrize(
    ("settings", "hardware", "words"),
    [
        (EngineSettings(device="cuda"), CPU, "shows no NVIDIA GPU; got cuda; allowed: auto, cpu"),
        (EngineSettings(device="cuda"), BARE, "not installed; got without triton; .*pip install quire"),
        (EngineSettings(device="triton:cpu"), replace(CPU, missing_extra=("torch", "triton")), "without torch, triton"),
        (EngineSettings(device="torch:cpu"), replace(CPU, missing_extra=("torch", "triton")), "without torch;"),
        (EngineSettings(device="tpu"), GPU, "allowed: auto, cpu, cuda"),
        (EngineSettings(dtype="float16"), CPU, "--dtype float16 needs a GPU"),
        (EngineSettings(quantization="fp8"), BARE, "--quantization fp8 needs a GPU"),
        (EngineSettings(kv_cache_dtype="fp8", device="cpu"), GPU, "--kv-cache-dtype fp8 needs a GPU"),
        (EngineSettings(quantization="int8", quantization_cache="kept"), GPU, "--quantization-cache keeps the CPU's"),
        (
            EngineSettings(attention_backend="flashinfer"),
            GPU,
            "without flashinfer; .*pip install .quire.flashinfer",
        ),
        (EngineSettings(attention_backend="flashinfer", device="cpu"), GPU, "flashinfer needs a GPU; got --device cpu"),
        (EngineSettings(attention_backend="triton"), CPU, "--attention-backend triton needs a GPU"),
        (EngineSettings(attention_backend="flash"), GPU, "allowed: auto, triton, flashinfer"),
        (EngineSettings(attention_backend="flashinfer", batch_invariant=True), BOTH, "contradict each other"),
        (EngineSettings(head_quantization="int4x2"), GPU, "int4x2 is a format of the CPU alone; got --device cuda"),
        (EngineSettings(gpu_memory_utilization=1.2), GPU, "--gpu-memory-utilization is no share"),
        (EngineSettings(quantization="fp8", quantization_group_size=64), GPU, "got fp8; allowed: int8, int4"),
    ],
)
def test_what_the_machine_lacks_is_refused_and_never_replaced(
    spec: ModelSpec, settings: EngineSettings, hardware: Hardware, words: str
) -> None:
    with pytest.raises(InvalidSetting, match=words):
        plan(settings, hardware, spec)


def test_torch_on_the_cpu_needs_no_triton(spec: ModelSpec) -> None:
    chosen = plan(EngineSettings(device="torch:cpu"), replace(CPU, missing_extra=("triton",)), spec)
    assert (chosen.device, chosen.device_bytes) == ("torch:cpu", 0)


def test_a_gpu_s_memory_is_shared_out_whole(spec: ModelSpec) -> None:
    large = replace(spec, **LLAMA_8B)
    chosen = plan(EngineSettings(max_num_seqs=256, max_num_batched_tokens=8192), GPU, large)
    assert chosen.device_bytes == int(140 * 2**30 * 0.92)
    assert chosen.total_bytes <= chosen.device_bytes
    assert chosen.device_bytes - chosen.total_bytes < chosen.kv_bytes // chosen.num_blocks, "the cache is the rest"
    assert chosen.kv_tokens > 600_000
    assert 16 * 2**30 > chosen.weights.total > 14 * 2**30


def test_what_others_hold_is_left_to_them(spec: ModelSpec) -> None:
    crowded = replace(GPU, accelerators=(replace(GPU.accelerators[0], memory_free_bytes=20 * 2**30),))
    large = replace(spec, **LLAMA_8B)
    assert plan(EngineSettings(max_model_len=4096), crowded, large).device_bytes == 20 * 2**30
    full = replace(GPU, accelerators=(replace(GPU.accelerators[0], memory_free_bytes=8 * 2**30),))
    with pytest.raises(NotEnoughMemory, match="weights do not fit"):
        plan(EngineSettings(), full, large)


def test_precisions_of_a_gpu(spec: ModelSpec) -> None:
    chosen = plan(EngineSettings(quantization="fp8", kv_cache_dtype="fp8", dtype="float16"), GPU, spec)
    assert (chosen.precision.dtype, chosen.head_precision.dtype, chosen.kv_dtype) == ("fp8", "fp8", "fp8")
    per_token = spec.num_layers * spec.num_kv_heads * 2 * (spec.head_dim + 4)
    assert kv_block_bytes(16, spec, "fp8", "cuda") == 16 * per_token
    assert chosen.kv_bytes == chosen.num_blocks * 16 * per_token
    assert GPU_RUNTIME_BYTES == 2**30


@pytest.mark.parametrize(
    ("settings", "hardware", "chosen"),
    [
        ({}, CPU, "quire"),
        ({}, GPU, "quire"),
        ({}, BOTH, "timed"),
        ({"device": "cpu"}, BOTH, "quire"),
        ({"device": "torch:cpu"}, BOTH, "quire"),
        ({"batch_invariant": True}, BOTH, "quire"),
        ({"attention_backend": "triton"}, BOTH, "quire"),
        ({"attention_backend": "flashinfer"}, BOTH, "flashinfer"),
    ],
)
def test_who_computes_attention(spec: ModelSpec, settings: dict[str, Any], hardware: Hardware, chosen: str) -> None:
    assert plan(EngineSettings(**settings), hardware, spec).attention_backend == chosen
