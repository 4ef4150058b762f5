"""Draws by Triton's kernels against the definition: the same tokens, by the sampler that serves."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from benchmarks.gpu.draws import CHAINS  # noqa: E402
from benchmarks.gpu.draws import asked as asked_with  # noqa: E402
from quire.kernels.reference.philox import random_bits as reference_bits  # noqa: E402
from quire.kernels.reference.sample import sample as reference  # noqa: E402
from quire.kernels.reference.weights import weigh as reference_weights  # noqa: E402
from quire.ops.torch_device import TorchDevice  # noqa: E402
from quire.request import Constraint  # noqa: E402
from quire.sampling.sampler import Sampler  # noqa: E402
from quire.step import Draw  # noqa: E402
from tests.sampling import draws as shared  # noqa: E402
from tests.sampling.draws import SIZES, draws, logits, same  # noqa: E402

pytestmark = pytest.mark.triton


def check(table: np.ndarray, asked: list[Draw]) -> None:
    device = TorchDevice("triton:cpu", dtype="float32")
    assert ("sample", "triton/sample") in {row[:2] for row in device.explain()}
    shared.check(device, table, asked)


def peaked(size: int, seed: int, width: float = 3.0) -> np.ndarray:
    """Logits with many equal ones, as bfloat16 gives them."""
    x = np.random.default_rng(seed).normal(0, width, size).astype(np.float32)
    return (x * 8).round() / 8


def asks(seed: int, size: int = 50, **params: object) -> Draw:
    return asked_with(params, size, seed)


@given(st.data())
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_chain_gives_what_the_definition_gives(data: st.DataObject) -> None:
    size = data.draw(st.sampled_from(SIZES))
    table = np.stack([data.draw(logits(size)) for _ in range(data.draw(st.integers(1, 3)))])
    check(table, [data.draw(draws(size)) for _ in table])


@pytest.mark.parametrize("size", [1, 50, 1000, 9000])
def test_every_chain_in_one_step(size: int) -> None:
    asked = [asks(seed, size, **params) for seed, params in enumerate(CHAINS.values())]
    check(np.stack([peaked(size, seed) for seed in range(len(asked))]), asked)


@pytest.mark.parametrize("chain", CHAINS)
def test_chains_alone(chain: str) -> None:
    check(peaked(600, 3)[None], [asks(5, **CHAINS[chain])])


def test_a_row_too_flat_to_list_is_read_whole() -> None:
    asked = [asks(1, temperature=2.0, top_p=0.9), asks(2, temperature=2.0, top_k=3000, top_p=0.99)]
    check(np.stack([peaked(9000, 8, 0.5), peaked(9000, 9, 0.5)]), asked)


def test_ties_at_the_cut_go_by_ascending_id() -> None:
    row = np.zeros(300, np.float32)
    row[100:200] = -0.0
    asked = [asks(seed, temperature=1.0, top_k=7) for seed in range(4)]
    asked += [asks(seed, temperature=1.0, top_p=0.02) for seed in range(4)]
    check(np.repeat(row[None], 8, axis=0), asked)


def test_many_draws_of_one_row() -> None:
    draw = asks(3, temperature=1.2, top_k=50, logprobs=2)
    check(peaked(400, 2)[None], [dataclasses.replace(draw, indices=tuple(range(9)))])


def test_rows_that_fail_say_why_and_harm_no_other() -> None:
    table = np.stack([peaked(300, seed) for seed in range(6)])
    table[0, 17], table[1, 4], table[2], table[5, 299] = np.nan, np.inf, -np.inf, -np.inf
    asked = [asks(seed, temperature=1.0, top_p=0.9) for seed in range(6)]
    asked[3] = dataclasses.replace(asked[3], banned_ids=tuple(range(300)))
    check(table, asked)


def test_a_mask_counts_for_rows_with_a_constraint_alone() -> None:
    table = np.stack([peaked(70, seed) for seed in range(3)])
    plain = asks(1, temperature=0.0)
    formed = dataclasses.replace(plain, constraint=Constraint("{}", "x"))
    masks = np.zeros((3, 3), np.int32)
    masks[1, 2] = 1 << 3
    device = TorchDevice("triton:cpu", dtype="float32")
    got = Sampler(device).draw(device.put(table), [plain, formed, plain], mask_RW=masks)
    assert [result.tokens for result in got][1] == (67,)
    for row in (0, 2):
        same(got[row], reference(table[row], plain))


def test_weights_and_random_bits_are_the_definition_s_bit_for_bit() -> None:
    import draw_probe

    x = np.sort(np.random.default_rng(0).uniform(-45, 0, 4096).astype(np.float32))
    for inverse in (1.0, 0.7, 1e38):
        assert np.array_equal(draw_probe.weights(x, inverse), reference_weights(x, float(x[-1]), inverse))
    for seed, index, position, total in ((0, 0, 0, 1), (-1, 3, 2**40, 2**61), (2**63 - 1, 2**31 - 1, 77, 12345)):
        bits, shared = draw_probe.bits(seed, index, position, total)
        assert bits == reference_bits(seed, index, position)
        assert shared == bits * total >> 53
