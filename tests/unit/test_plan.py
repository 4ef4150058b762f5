"""Plan: every "auto" becomes a value, or one clear refusal; another machine's /proc is read as it stands."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path

import pytest

from quire.errors import InvalidSetting, NotEnoughMemory, StartError
from quire.hardware import Hardware, probe
from quire.model_spec import ModelSpec, read_model_spec
from quire.ops.kv_cache import block_nbytes
from quire.plan import ITL_FACTOR, ITL_FLOOR_S, KV_SHARE, Plan, kv_block_bytes, plan, precisions, weight_bytes
from quire.precision import Precision
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
        (EngineSettings(quantization="int3"), InvalidSetting, "none, int8, int4"),
        (EngineSettings(head_quantization="int2"), InvalidSetting, "auto, none, int8, int4"),
        (EngineSettings(quantization="int8", quantization_group_size=48), InvalidSetting, "32, 64, 128, or 0"),
        (EngineSettings(quantization="int8", quantization_group_size=True), InvalidSetting, "32, 64, 128, or 0"),
        (EngineSettings(quantization_group_size=64), InvalidSetting, "needs --quantization"),
        (EngineSettings(quantization_cache="kept"), InvalidSetting, "--quantization-cache needs --quantization"),
        (EngineSettings(dtype="float32", quantization="int4"), InvalidSetting, "--dtype float32 and --quantization"),
        (EngineSettings(dtype="float32", head_quantization="int8"), InvalidSetting, "and --head-quantization"),
        (EngineSettings(kv_cache_dtype="int4"), InvalidSetting, "auto, bfloat16, float32, int8"),
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
    assert found == Hardware("A CPU", 1, 4 * GIB, 3 * GIB)


def test_this_machine_can_be_probed() -> None:
    found = probe()
    assert found.num_cores >= 1
    assert 0 < found.memory_available_bytes <= found.memory_total_bytes


@pytest.mark.parametrize("head_dim", [6, 8, 16, 64, 80, 96, 128])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "int8"])
def test_the_plan_counts_blocks_as_the_cache_makes_them(spec: ModelSpec, head_dim: int, dtype: str) -> None:
    shaped = replace(spec, head_dim=head_dim)
    made = block_nbytes(shaped.num_layers, 32, shaped.num_kv_heads, head_dim, dtype)
    assert kv_block_bytes(32, shaped, dtype) == made


BF16 = Precision("bfloat16")


@pytest.mark.parametrize(
    ("options", "layers", "head"),
    [
        ({}, BF16, BF16),
        ({"dtype": "float32"}, Precision("float32"), Precision("float32")),
        ({"quantization": "int8"}, Precision("int8"), Precision("int8")),
        ({"quantization": "int4"}, Precision("int4", 32), Precision("int8")),
        ({"quantization": "int4", "quantization_group_size": 0}, Precision("int4"), Precision("int8")),
        ({"quantization": "int4", "head_quantization": "int4x2"}, Precision("int4", 32), Precision("int4x2")),
        ({"quantization": "int4", "head_quantization": "int4"}, Precision("int4", 32), Precision("int4", 32)),
        ({"quantization": "int8", "quantization_group_size": 128}, Precision("int8", 128), Precision("int8")),
        ({"quantization": "int8", "head_quantization": "none"}, Precision("int8"), BF16),
        ({"head_quantization": "int8"}, BF16, Precision("int8")),
    ],
)
def test_what_is_asked_becomes_a_precision_of_layers_and_of_head(
    spec: ModelSpec, options: dict[str, object], layers: Precision, head: Precision
) -> None:
    made = plan(EngineSettings(**options), MACHINE, spec)  # type: ignore[arg-type]
    assert (made.precision, made.head_precision) == (layers, head)
    assert made.weights == weight_bytes(spec, layers, head)


def test_bytes_of_the_published_shape(tmp_path: Path) -> None:
    """Llama 3.1 8B: embedding and head hold 0.525 G of the 8.03 G parameters each; a token reads one of the two."""
    values = {**CONFIG, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
    values |= {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256}
    (tmp_path / "config.json").write_text(json.dumps(values))
    made = plan(
        EngineSettings(quantization="int4"),
        replace(MACHINE, memory_available_bytes=64 * GIB),
        read_model_spec(tmp_path),
    )
    in_layers, in_head = 6_979_321_856, 525_336_576
    assert made.weights.layers == pytest.approx(in_layers * (4 + 16 / 32) / 8, rel=5e-3)  # panels are filled up
    assert made.weights.embeddings == pytest.approx(2 * in_head, rel=2e-3)
    assert made.weights.vectors == 4 * 4096 * 65
    in_products = (
        made.weights.layers + made.weights.vectors
    )  # of the head one plane of two, and a few rows of the other
    assert made.weights.per_token - in_products == pytest.approx(in_head / 2, rel=6e-3)


def test_a_head_in_two_planes_is_for_int4_and_many_tokens_on_a_processor(spec: ModelSpec) -> None:
    many, few = replace(spec, vocab_size=32768), replace(spec, vocab_size=32767)
    int4, int8 = EngineSettings(quantization="int4"), EngineSettings(quantization="int8")
    chosen = [
        precisions(settings, spec_of, device)[1].dtype
        for settings, spec_of, device in (
            (int4, many, "cpu"),
            (int4, few, "cpu"),
            (int4, many, "cuda"),
            (int8, many, "cpu"),
            (EngineSettings(), many, "cpu"),
            (replace(int4, head_quantization="int8"), many, "cpu"),
        )
    ]
    assert chosen == ["int4x2", "int8", "int8", "int8", "bfloat16", "int8"]


def test_a_precision_says_what_it_is() -> None:
    made = [Precision("float32"), Precision("int8"), Precision("int8", 128), Precision("int4", 32, False)]
    assert [str(each) for each in made] == [
        "float32", "int8, one scale a row", "int8, groups of 128", "int4, groups of 32, asymmetric",
    ]  # fmt: skip
    assert [each.tag for each in made] == ["float32", "int8", "int8-g128", "int4-g32a"]


@pytest.mark.parametrize(
    ("asked", "floor_s", "factor"), [(None, ITL_FLOOR_S, ITL_FACTOR), (0.0, math.inf, 0.0), (0.25, 0.25, 0.0)]
)
def test_the_inter_token_target(spec: ModelSpec, asked: float | None, floor_s: float, factor: float) -> None:
    made = plan(EngineSettings(itl_target=asked), MACHINE, spec)
    assert (made.itl_floor_s, made.itl_factor) == (floor_s, factor)


@pytest.mark.parametrize("asked", [-0.1, math.inf, math.nan])
def test_an_inter_token_target_that_is_no_time(asked: float) -> None:
    with pytest.raises(InvalidSetting, match="--itl-target"):
        check(EngineSettings(itl_target=asked))
