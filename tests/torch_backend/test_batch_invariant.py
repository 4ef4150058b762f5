"""The mode in which a row's bits depend on the row alone: seen op by op and, through the engine, answer by answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quire.engine.build import build_engine
from quire.hardware import probe
from quire.llm import BUNDLED
from quire.model_spec import read_model_spec
from quire.ops.device import Device
from quire.ops.linear import linear, pack, quantize
from quire.ops.open_device import open_device
from quire.ops.rms_norm import rms_norm
from quire.plan import plan
from quire.settings import EngineSettings
from tests.engine.test_exactness import Answers, make_requests, serve

torch = pytest.importorskip("torch")

CUTS = (1, 2, 3, 63, 64, 65, 130)


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def device(request: pytest.FixtureRequest) -> Device:
    return open_device("torch:cpu", 1, request.param, batch_invariant=True)


def rows(device: Device, num_rows: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_rows, width, generator=generator).to(device.dtype)


@pytest.mark.parametrize("form", ["float32", "bfloat16", "int8", "int4", "fp8"])
def test_products_of_rows_alone_and_in_company(device: Device, form: str) -> None:
    part = np.random.default_rng(1).standard_normal((50, 200), dtype=np.float32)
    weight = quantize(device, [part], int(form[3:]), 32) if form.startswith("int") else pack(device, [part], form)
    x, norm = rows(device, 130, 200, 2), device.put(np.linspace(0.5, 2, 200, dtype=np.float32))
    whole = torch.empty(130, 50, dtype=device.dtype)
    linear(device, x, weight, whole, norm=(norm, 1e-5))
    for count in CUTS:
        first = (130 - count) // 2
        out = torch.empty(count, 50, dtype=device.dtype)
        linear(device, x[first : first + count], weight, out, norm=(norm, 1e-5))
        assert torch.equal(out, whole[first : first + count]), count


def test_norms_of_rows_alone_and_in_company(device: Device) -> None:
    x, weight = rows(device, 130, 333, 3), device.put(np.linspace(0.5, 2, 333, dtype=np.float32))
    whole = torch.empty_like(x)
    rms_norm(device, x, weight, 1e-5, whole)
    for count in CUTS:
        out = torch.empty(count, 333, dtype=device.dtype)
        rms_norm(device, x[:count], weight, 1e-5, out)
        assert torch.equal(out, whole[:count])


def answers(budget: int, cache: bool, spread: int, kv_dtype: str) -> Answers:
    folder = Path(BUNDLED)
    settings = EngineSettings(
        device="torch:cpu", batch_invariant=True, threads=1, max_num_seqs=8, max_num_batched_tokens=budget,
        prefix_cache=cache, kv_cache_dtype=kv_dtype, kv_cache_memory_bytes=64 * 2**20,
    )  # fmt: skip
    built = build_engine(plan(settings, probe(), read_model_spec(folder)), folder)
    asked = [each for each in make_requests(read_model_spec(folder).vocab_size) if len(each.prompt) < 700][:8]
    asked = [
        replace(each, params=replace(each.params, max_tokens=min(each.params.max_tokens or 6, 6))) for each in asked
    ]
    return serve(built.engine, [(spread * number, each) for number, each in enumerate(asked)])


@pytest.mark.parametrize("kv_dtype", ["bfloat16", "int8"])
def test_an_answer_is_the_same_bits_alone_and_in_company(kv_dtype: str) -> None:
    """In bfloat16: log probabilities are equal as numbers, with prompts whole, in pieces, and after cached prefixes."""
    alone = answers(1024, False, 100, kv_dtype)
    assert answers(64, True, 1, kv_dtype) == alone
    assert answers(512, False, 0, kv_dtype) == alone
