"""Plan: every "auto" becomes a value, or one clear refusal; another machine's /proc is read as it stands."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from quire.errors import InvalidSetting, NotEnoughMemory, StartError
from quire.hardware import Hardware, probe
from quire.model_spec import ModelSpec, read_model_spec
from quire.ops.kv_cache import block_nbytes
from quire.plan import KV_SHARE, Plan, kv_block_bytes, plan
from quire.settings import EngineSettings, ServerSettings, check, flag

GIB = 2**30
MACHINE = Hardware("a cpu", 4, 16 * GIB, 12 * GIB)
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return read_model_spec(tmp_path)


def test_nothing_stays_auto(spec: ModelSpec) -> None:
    made = plan(EngineSettings(), MACHINE, spec)
    assert all(getattr(made, entry.name) is not None for entry in fields(Plan))
    assert "auto" not in [getattr(made, entry.name) for entry in fields(Plan)]
    assert (made.dtype, made.kv_dtype, made.threads, made.max_model_len) == ("bfloat16", "bfloat16", 4, 8192)


def test_the_pool_is_a_quarter_of_what_is_left_and_never_more_than_needed(spec: ModelSpec) -> None:
    made = plan(EngineSettings(max_num_seqs=64), MACHINE, spec)
    left = MACHINE.memory_available_bytes - made.weights.total
    block = 16 * spec.kv_bytes_per_token("bfloat16")
    assert 0.9 * KV_SHARE * left < made.kv_bytes <= KV_SHARE * left
    small = plan(EngineSettings(max_num_seqs=2, max_model_len=1000), MACHINE, spec)
    assert small.kv_bytes == 2 * 63 * block


def test_a_context_that_the_pool_cannot_hold_is_cut_with_a_note_or_refused(spec: ModelSpec) -> None:
    tight = replace(MACHINE, memory_available_bytes=plan(EngineSettings(), MACHINE, spec).weights.total + GIB // 2)
    made = plan(EngineSettings(), tight, spec)
    assert made.max_model_len < 8192
    assert made.kv_tokens >= made.max_model_len
    assert "context cut" in made.notes[0]
    with pytest.raises(NotEnoughMemory, match="--max-model-len"):
        plan(EngineSettings(max_model_len=8192), tight, spec)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        (EngineSettings(max_model_len=9000), InvalidSetting, "8192"),
        (EngineSettings(block_size=24), InvalidSetting, "--block-size"),
        (EngineSettings(dtype="fp8"), InvalidSetting, "bfloat16, float32"),
        (EngineSettings(max_num_seqs=0), InvalidSetting, "--max-num-seqs"),
        (EngineSettings(threads=0), InvalidSetting, "--threads"),
        (EngineSettings(kv_cache_memory_bytes=2**50), NotEnoughMemory, "--kv-cache-memory-bytes"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(
    spec: ModelSpec, settings: EngineSettings, error: type[StartError], words: str
) -> None:
    with pytest.raises(error, match=words):
        plan(settings, MACHINE, spec)


def test_weights_that_do_not_fit_are_refused(spec: ModelSpec) -> None:
    with pytest.raises(NotEnoughMemory, match="weights do not fit"):
        plan(EngineSettings(), replace(MACHINE, memory_available_bytes=GIB // 4), spec)


def test_server_settings_are_checked_too() -> None:
    check(ServerSettings())
    with pytest.raises(InvalidSetting, match="--port"):
        check(ServerSettings(port=70000))
    with pytest.raises(InvalidSetting, match="refuse, warn"):
        check(ServerSettings(unknown_fields="drop"))
    assert flag("max_num_seqs") == "--max-num-seqs"


def test_a_container_is_read_as_its_cgroup_says(tmp_path: Path) -> None:
    files = {
        "proc/cpuinfo": "model name\t: A CPU\nflags\t\t: avx2 fma\n",
        "proc/meminfo": "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n",
        "proc/self/cgroup": "0::/pod/box\n",
        "sys/fs/cgroup/pod/memory.max": f"{4 * GIB}\n",
        "sys/fs/cgroup/pod/memory.current": f"{GIB}\n",
        "sys/fs/cgroup/pod/box/memory.max": "max\n",
        "sys/fs/cgroup/pod/box/cpu.max": "100000 100000\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = probe(tmp_path)
    assert found == Hardware("A CPU", 1, 4 * GIB, 3 * GIB, frozenset({"avx2", "fma"}))


def test_this_machine_can_be_probed() -> None:
    found = probe()
    assert found.num_cores >= 1
    assert 0 < found.memory_available_bytes <= found.memory_total_bytes


@pytest.mark.parametrize("head_dim", [8, 16, 64, 80, 96, 128])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_plan_counts_blocks_as_the_cache_makes_them(spec: ModelSpec, head_dim: int, dtype: str) -> None:
    shaped = replace(spec, head_dim=head_dim)
    made = block_nbytes(shaped.num_layers, 32, shaped.num_kv_heads, head_dim, dtype)
    assert kv_block_bytes(32, shaped, dtype) == made
