"""Bad words and allow-lists: the bits of a whole step against their definition, row by row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.kernels.reference.penalties import permitted
from quire.ops.device import Device
from quire.request import Constraint, SamplingParams
from quire.sampling.restrictions import RestrictedRows, make_restriction
from quire.sampling.sampler import Sampler
from quire.step import NOTHING_ALLOWED, Draw
from tests.sampling.draws import draws, rows

SIZE = 70


def bits(mask_W: np.ndarray, size: int = SIZE) -> np.ndarray:
    return np.unpackbits(mask_W.view(np.uint8), bitorder="little")[:size].astype(bool)


def packed(allowed_V: np.ndarray) -> np.ndarray:
    return np.packbits(np.resize(allowed_V, -(-len(allowed_V) // 32) * 32), bitorder="little").view("<i4")


@given(st.lists(draws(SIZE), min_size=1, max_size=6), st.integers(0, 10**6))
@settings(max_examples=150, deadline=None)
def test_a_steps_bits_are_those_of_the_definition(asked: list[Draw], seed: int) -> None:
    formed = [
        Draw(how.params, how.indices, how.history, how.num_prompt, (), Constraint("g") if n % 2 else None, 0, bad)
        for n, how in enumerate(asked)
        for bad in [how.bad_sequences]
    ]
    forms_RV = np.random.default_rng(seed).integers(0, 2, (len(formed), SIZE)).astype(bool)
    given_RW = np.stack([packed(form_V) for form_V in forms_RV])
    restrictions = [make_restriction(how, SIZE) for how in formed]
    if not any(restrictions):
        return
    together = RestrictedRows(formed, restrictions)
    before = given_RW.copy()
    for _ in range(2):  # a second step of the same draws
        mask_RW = together.mask(given_RW)
        assert np.array_equal(given_RW, before)  # the keeper's own rows
        for row, how in enumerate(formed):
            if how.is_restricted:
                expected_V = permitted(how, SIZE) & (forms_RV[row] if how.constraint else True)
                assert np.array_equal(bits(mask_RW[row]), expected_V)
            elif how.constraint:
                assert np.array_equal(bits(mask_RW[row]), forms_RV[row])


def test_a_longer_bad_word_is_stopped_at_its_last_token_and_only_there() -> None:
    with Device(1) as device:
        history = [9]
        how = Draw(SamplingParams(temperature=0.0), (0,), history, 1, (), None, 0, ((3, 4, 5), (4, 6), (2**31 - 1,)))
        row = np.zeros((1, 8), np.float32)
        sampler, written = Sampler(device), []
        for best in (3, 4, 5, 3, 4, 6, 4, 3, 5):
            row[:] = 0
            row[0, best] = 1
            history += sampler.draw(row, [how])[0].tokens
            written.append(history[-1])
        assert written == [3, 4, 0, 3, 4, 0, 4, 3, 5]


def test_the_prompt_is_no_beginning_of_a_bad_word() -> None:
    how = Draw(SamplingParams(), (0,), [3, 4], 2, (), None, 0, ((3, 4, 5),))
    assert permitted(how, 8).all()
    restriction = make_restriction(how, 8)
    assert bits(RestrictedRows([how], [restriction]).mask(None)[0], 8).all()


def test_an_empty_intersection_is_an_error_of_that_row_alone() -> None:
    with Device(1) as device:
        table = np.stack([rows(SIZE, 1), rows(SIZE, 2), rows(SIZE, 2)])
        shut = Draw(SamplingParams(allowed_token_ids=[5, 6]), (0,), [1], 1, (), None, 0, ((5,), (6,)))
        formed = Draw(SamplingParams(allowed_token_ids=[5]), (0,), [1], 1, (), Constraint("g"))
        plain = Draw(SamplingParams(seed=4), (0,), [1], 1)
        mask_RW = np.full((3, 3), -1, np.int32)
        mask_RW[1] = [1 << 6, 0, 0]
        first, second, third = Sampler(device).draw(table, [shut, formed, plain], 0, mask_RW)
        assert (first.error, second.error) == (NOTHING_ALLOWED, NOTHING_ALLOWED)
        assert third == Sampler(device).draw(table[2:], [plain])[0]


@pytest.mark.parametrize("size", [1, 31, 32, 33, 4096])
def test_ids_beyond_the_vocabulary_forbid_nothing_else(size: int) -> None:
    how = Draw(SamplingParams(allowed_token_ids=[0, 10**6]), (0,), [1], 1, (), None, 0, ((10**6,), (0, 10**6)))
    restriction = make_restriction(how, size)
    assert restriction is not None
    assert np.flatnonzero(bits(restriction.bits_W, size)).tolist() == [0]
    assert restriction.longer == ()
