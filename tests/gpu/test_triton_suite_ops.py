"""The comparisons of `make gpu` with Triton's kernels, under the interpreter: one of a kind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from benchmarks.gpu import draws, ops  # noqa: E402
from quire.ops.open_device import open_device  # noqa: E402

pytestmark = pytest.mark.triton
CPU = torch.device("cpu")


def every(cases: Iterator[ops.Case], step: int) -> None:
    chosen = list(cases)[::step]
    assert len(chosen) > 2
    wrong = [name for name, is_right in chosen if not is_right()]
    assert not wrong


def test_rows() -> None:
    every(ops.rowwise("triton", CPU, (3,)), 3)


def test_products() -> None:
    every(ops.products("triton", CPU, (3, 17), ((35, 130),)), 11)


def test_cache_and_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "MIXED", ((1, 1), (5, 5), (1, 40), (33, 50)))
    monkeypatch.setattr(ops, "SPLIT", ((1, 300), (3, 270)))
    every(ops.cached("triton", CPU, ((4, 2, 16),)), 4)


def test_batch_invariance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "MIXED", ((1, 1), (5, 5), (1, 40)))
    every(ops.invariant("triton", CPU), 2)


def test_draws() -> None:
    every(draws.cases(open_device("triton:cpu", 1, "float32"), (300,), range(1)), 9)


def test_a_wrong_kernel_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = ops.kernel

    def off_by_a_little(kind: str, op: str) -> object:
        def run(*arguments: object) -> None:
            plain(kind, op)(*arguments)
            arguments[-1].view(-1)[-1] += 0.01 if op == "rms_norm" else 0.0  # type: ignore[attr-defined]

        return run

    monkeypatch.setattr(ops, "kernel", off_by_a_little)
    assert not ops.norm_is_right("torch", CPU, 3, "float32")
    assert ops.silu_is_right("torch", CPU, 3, "float32")
