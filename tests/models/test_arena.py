"""Views of the arena: aligned, contiguous, remembered, growing with the largest step."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from quire.ops.arena import Arena

shapes = st.lists(st.integers(0, 40), min_size=1, max_size=3).map(tuple)


@given(st.lists(st.tuples(st.sampled_from("abc"), shapes), max_size=20))
def test_views_are_aligned_contiguous_float32(asked: list[tuple[str, tuple[int, ...]]]) -> None:
    arena = Arena()
    for name, shape in asked:
        view = arena.view(name, shape)
        assert view.shape == shape
        assert view.dtype == np.float32
        assert view.flags.c_contiguous
        assert view.flags.writeable
        assert view.size == 0 or view.ctypes.data % 64 == 0


def test_a_repeated_shape_is_the_same_array() -> None:
    arena = Arena()
    first = arena.view("x", (3, 5))
    assert arena.view("x", (3, 5)) is first
    size = arena.num_bytes
    assert np.shares_memory(arena.view("x", (2, 5)), first)
    assert not np.shares_memory(arena.view("y", (3, 5)), first)
    assert arena.num_bytes == 2 * size


def test_growing_forgets_views_of_the_old_buffer() -> None:
    arena = Arena()
    small = arena.view("x", (2, 2))
    large = arena.view("x", (20, 20))
    assert not np.shares_memory(small, large)
    assert np.shares_memory(arena.view("x", (2, 2)), large)


def test_poison_fills_what_is_handed_out() -> None:
    arena = Arena(poison=True)
    arena.view("x", (4,))[:] = 1
    assert np.isnan(arena.view("x", (4,))).all()


def test_remembered_views_are_bounded() -> None:
    arena = Arena()
    for size in range(20000):
        arena.view("x", (size % 100, size))
    assert len(arena._views) <= 8192
