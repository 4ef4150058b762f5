"""Draws on a torch device against the definition: the same tokens, in any company, with the sampler that serves."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.kernels.reference.philox import random_bits as reference_bits
from quire.kernels.reference.sample import sample as reference
from quire.kernels.reference.weights import weigh as reference_weights
from quire.ops.device import Device
from quire.request import Constraint, SamplingParams
from quire.sampling.sampler import Sampler, told
from quire.step import Draw, WorkResult
from tests.sampling.draws import SIZES, check, draw, draws, logits, rows, same

torch = pytest.importorskip("torch")


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_every_chain_gives_what_the_definition_gives(torch_device: Device, data: st.DataObject) -> None:
    size = data.draw(st.sampled_from(SIZES))
    table = np.stack([data.draw(logits(size)) for _ in range(data.draw(st.integers(1, 4)))])
    check(torch_device, table, [data.draw(draws(size)) for _ in table])


def test_weights_are_the_definition_s_bit_for_bit(torch_device: Device) -> None:
    from quire.kernels.torch.integer_weights import weigh

    x = np.sort(np.random.default_rng(0).uniform(-45, 0, 200_000).astype(np.float32))
    for inverse in (1.0, 0.7, 3.3, 1e38):
        got = weigh(torch.tensor(x[None]), torch.tensor([[x[-1]]]), torch.tensor([[inverse]]))
        assert np.array_equal(got[0].numpy(), reference_weights(x, float(x[-1]), inverse))


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**31 - 1), st.integers(0, 2**40), st.integers(1, 2**60 - 1))
def test_random_bits_and_their_share_are_the_definition_s(seed: int, index: int, position: int, total: int) -> None:
    from quire.kernels.torch.philox import random_bits, scaled

    bits = random_bits(*(torch.tensor([value]) for value in (seed, index, position)))
    assert int(bits) == reference_bits(seed, index, position)
    assert int(scaled(bits, torch.tensor([total]))) == int(bits) * total >> 53


def test_counts_follow_a_growing_history(torch_device: Device) -> None:
    """The same draws stand step after step; sequences come, go and come back while others stay."""
    rng, size = np.random.default_rng(5), 40
    params = [
        SamplingParams(temperature=0.8, repetition_penalty=1.5, frequency_penalty=0.4, presence_penalty=0.3, seed=n)
        for n in range(4)
    ]
    histories: list[list[int]] = [rng.integers(0, size, n + 1).tolist() for n in range(4)]
    asked = [Draw(params[n], (0,), histories[n], n + 1) for n in range(4)]
    sampler = Sampler(torch_device)
    for number in range(30):
        here = [n for n in range(4) if (number + n) % 5]
        table = rng.normal(0, 2, (len(here), size)).astype(np.float32)
        got = sampler.draw(torch_device.put(table), [asked[n] for n in here])
        for place, n in enumerate(here):
            same(got[place], reference(table[place], asked[n]))
            histories[n].append(got[place].tokens[0])


def test_a_mask_counts_for_rows_with_a_constraint_alone(torch_device: Device) -> None:
    table = np.stack([rows(70, seed) for seed in range(3)])
    plain = draw(SamplingParams(temperature=0.0))
    formed = dataclasses.replace(plain, constraint=Constraint("{}", "x"))
    masks = np.zeros((3, 3), np.int32)
    masks[1, 2] = 1 << 3
    got = Sampler(torch_device).draw(torch_device.put(table), [plain, formed, plain], mask_RW=masks)
    assert [result.tokens for result in got] == [(int(table[0].argmax()),), (67,), (int(table[2].argmax()),)]


def test_logits_processors_see_and_change_rows(torch_device: Device) -> None:
    def only_seven(output_ids: Any, logits_V: Any) -> None:
        logits_V[:] = np.where(np.arange(len(logits_V)) == 7, 1.0, -np.inf)

    table = np.stack([rows(30, seed) for seed in range(2)])
    asked = [draw(SamplingParams(logits_processors=(only_seven,), logprobs=1)), draw(SamplingParams(temperature=0.0))]
    there = torch_device.put(table)
    got = Sampler(torch_device).draw(there, asked)
    assert got[0].tokens == (7,)
    assert got[0].logprobs[0].top[0][0] == int(table[0].argmax())
    assert got[1].tokens == (int(table[1].argmax()),)
    assert np.array_equal(torch_device.fetch(there), table)


def test_what_the_model_thought_of_given_tokens(torch_device: Device) -> None:
    with Device(1) as cpu:
        table = np.stack([rows(50, seed) for seed in range(5)])
        expected = told(cpu, table.copy(), [3, 0, 49, 7, 7], 4)
        got = told(torch_device, torch_device.put(table), [3, 0, 49, 7, 7], 4)
    assert got is not None
    assert expected is not None
    same(WorkResult((), tuple(got)), WorkResult((), tuple(expected)))
    table[2, 5] = np.nan
    assert told(torch_device, torch_device.put(table), [3, 0, 49, 7, 7], 4) is None
