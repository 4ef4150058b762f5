"""FlashInfer behind the attention door, with a stand-in that keeps its interface: whole models answer token for token
as the CPU, and what fails is given up."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quire.engine.build import Built
from quire.errors import InvalidSetting
from quire.request import Request, SamplingParams
from quire.runner.canary import Canary
from tests.engine.test_exactness import serve
from tests.models.tiny import make_tiny
from tests.torch_backend.test_graphs import Fake, graphs_of
from tests.torch_backend.test_run_ahead import plain_requests
from tests.torch_backend.test_torch_engine import answers, build, same

pytest.importorskip("torch")
pytest.importorskip("transformers")

FOLDER = Path(__file__).with_name("fake_flashinfer")
NAMES = ("flashinfer", "flashinfer.jit")


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stand-in, installed; float32 counts as one of its types, so that tokens can be compared."""
    import importlib

    from quire.kernels.vendor import fits

    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(fits, "FLOATS", ("bfloat16", "float16", "float32"))
    yield importlib.import_module("flashinfer")
    for name in NAMES:
        sys.modules.pop(name, None)


def tiny(folder: Path, family: str = "llama", **sizes: Any) -> Path:
    return make_tiny(folder, family, **{"head_dim": 64, "max_position_embeddings": 512, **sizes})


SMALL = {"max_num_batched_tokens": 64, "max_num_seqs": 8}


def insisting(folder: Path, **options: Any) -> Built:
    return build(folder, "torch:cpu", **{"attention_backend": "flashinfer", **SMALL, **options})


@pytest.mark.parametrize(
    ("family", "sizes", "options"),
    [
        ("llama", {}, {}),
        ("qwen3", {"num_attention_heads": 6}, {"enforce_eager": True}),
        ("qwen2", {"num_attention_heads": 2}, {"block_size": 32}),
    ],
)
def test_a_model_answers_as_on_the_cpu(
    tmp_path: Path, library: Any, family: str, sizes: dict[str, Any], options: dict[str, Any]
) -> None:
    """Groups of one to three heads, so both of its kernels for tokens; recorded steps and launched ones."""
    folder = tiny(tmp_path, family, **sizes)
    built = insisting(folder, **options)
    del library.LOG[:]
    same(answers(built, folder, 10), answers(build(folder, "cpu", **SMALL), folder, 10))
    assert {name for name, _ in library.LOG} == {"decode", "prefill"}
    rows = {op: by for op, by, _ in built.kernels if op.startswith("attention:")}
    assert set(rows.values()) == {"flashinfer 0.6.18"}
    assert "flashinfer 0.6.18 for single tokens, prompts, both in a step" in built.isa
    assert any(note.startswith("attention of tokens: flashinfer 0.6.18") for note in built.notes)


def test_recorded_steps_are_planned_anew_before_every_replay(tmp_path: Path, library: Any) -> None:
    folder = tiny(tmp_path, vocab_size=2048)
    engine = insisting(folder).engine
    graphs, fake = graphs_of(engine), Fake()
    graphs._recorder = fake
    arrivals = [(3 * number, each) for number, each in enumerate(plain_requests(8, 3))]
    del library.PLANS[:]
    got = serve(engine, arrivals)
    same(got, serve(build(folder, "cpu", **SMALL).engine, arrivals))
    assert fake.replayed > 10
    assert library.PLANS.count("decode") >= fake.replayed


def test_the_stand_in_is_what_computes(tmp_path: Path, library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in that computes something else is noticed at start: it would be noticed in every answer."""
    folder = tiny(tmp_path)
    monkeypatch.setitem(library.SKEW, "by", 1.0)
    with pytest.raises(InvalidSetting, match="computes something else"):
        insisting(folder)


@pytest.mark.parametrize("where", ["plan", "run"])
def test_one_that_fails_at_start_is_refused(
    tmp_path: Path, library: Any, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setitem(library.BROKEN, where, "no kernel image is available")
    with pytest.raises(InvalidSetting, match=r"cannot be had here.*no kernel image"):
        insisting(tiny(tmp_path))


@pytest.mark.parametrize("eager", [False, True])
def test_a_plan_that_fails_later_is_given_up_and_answers_come_all_the_same(
    tmp_path: Path, library: Any, monkeypatch: pytest.MonkeyPatch, eager: bool
) -> None:
    folder = tiny(tmp_path)
    built = insisting(folder, enforce_eager=eager)
    first = Request("one", (5, 6, 7), SamplingParams(temperature=0.0, seed=0, max_tokens=12, ignore_eos=True))
    expected = serve(build(folder, "cpu", **SMALL).engine, [(0, first)])
    same(serve(built.engine, [(0, first)]), expected)
    monkeypatch.setitem(library.BROKEN, "plan", "Increase the workspace buffer size")
    same(serve(built.engine, [(0, first)]), expected)
    del library.LOG[:]
    same(serve(built.engine, [(0, first)]), expected)
    assert not library.LOG
    told = {op: (by, why) for op, by, why in built.kernels if op.startswith("attention:")}
    assert {by for by, _ in told.values()} == {"torch/attention"}
    assert all("given up: RuntimeError: Increase the workspace" in why for _, why in told.values())


@pytest.mark.parametrize(
    ("sizes", "options", "why"),
    [
        ({"head_dim": 16}, {}, "its heads are of 64, 128, 256, and these are of 16"),
        ({}, {"kv_cache_dtype": "int8"}, "these are int8"),
        ({}, {"kv_cache_dtype": "bfloat16"}, "its queries have the pages' type, and these are float32"),
    ],
)
def test_what_it_cannot_do_is_said_and_not_tried(
    tmp_path: Path, library: Any, sizes: dict[str, Any], options: dict[str, Any], why: str
) -> None:
    before = len(library.PLANS)
    with pytest.raises(InvalidSetting, match=why):
        insisting(tiny(tmp_path, **sizes), **options)
    assert len(library.PLANS) == before


def test_the_canary_sings_the_same_whoever_computes_attention(
    tmp_path: Path, library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner: Any = insisting(tiny(tmp_path)).engine.runner
    canary = Canary(runner.model, runner.machine)
    canary.begin()
    monkeypatch.setitem(library.SKEW, "by", 1.0)
    assert canary.examine() is None


def test_auto_on_a_cpu_and_the_invariant_mode_keep_our_own(tmp_path: Path, library: Any) -> None:
    folder = tiny(tmp_path)
    for options in ({"attention_backend": "auto"}, {"attention_backend": "auto", "batch_invariant": True}):
        before = len(library.PLANS)
        built = insisting(folder, **options)
        serve(built.engine, [(0, Request("one", (5, 6), SamplingParams(temperature=0.0, seed=0, max_tokens=3)))])
        assert len(library.PLANS) == before
        assert not any("flashinfer" in str(row) for row in built.kernels)
    with pytest.raises(InvalidSetting, match="contradict each other"):
        insisting(folder, batch_invariant=True)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_its_own_types_against_numpy(library: Any, dtype: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As `make gpu` does, on our pages, in shuffled blocks, recorded steps with other lengths than were recorded."""
    from benchmarks.gpu import attention
    from benchmarks.gpu.context import Context
    from benchmarks.gpu.rows import Writer

    rows = Writer("attention", None, print, True)
    attention.correctness(Context("torch:cpu", True, 0.0, rows), ((4, 2, 64), (6, 2, 128)), (dtype,))
    assert [row.verdict for row in rows.rows] == ["met"], capsys.readouterr().out
    assert rows.rows[0].unit == "wrong of 8"


def test_a_model_of_the_suite_goes_through_it(library: Any) -> None:
    from benchmarks.gpu import attention
    from benchmarks.gpu.context import Context
    from benchmarks.gpu.rows import Writer

    rows = Writer("attention", None, print, True)
    attention.whole_model(Context("torch:cpu", True, 0.0, rows))
    assert [row.verdict for row in rows.rows] == ["met"], rows.rows
    assert {name for name, _ in library.LOG} == {"decode", "prefill"}


def test_speed_beside_ours_is_told(library: Any) -> None:
    from benchmarks.gpu import attention
    from benchmarks.gpu.context import Context
    from benchmarks.gpu.rows import Writer

    rows = Writer("attention", None, print, True)
    attention.speed(Context("torch:cpu", True, 0.0, rows), True)
    assert [row.verdict for row in rows.rows] == ["told", "told", "met"] * 3
    assert all(np.isfinite(row.got or 0) for row in rows.rows)


def test_what_is_not_compiled_is_skipped_and_ours_is_timed_alone(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import flashinfer.jit as jit

    from benchmarks.gpu import attention
    from benchmarks.gpu.context import Context
    from benchmarks.gpu.rows import Writer

    monkeypatch.setattr(jit, "COMPILED", dict.fromkeys(jit.COMPILED, False))
    rows = Writer("attention", None, print, True)
    context = Context("torch:cpu", True, 0.0, rows)
    attention.correctness(context, ((4, 2, 64),), ("bfloat16",))
    attention.speed(context, True)
    assert [row.verdict for row in rows.rows] == ["skipped", "skipped", "told", "told", "told"]
    assert "not compiled yet (batch_prefill_fa2, batch_decode)" in rows.rows[0].why
