"""Philox against its published vectors, and the law that a draw depends on seed, index and position alone."""

from __future__ import annotations

import numpy as np

from quire.kernels.reference.philox import philox, uniform


def test_philox_gives_the_published_vectors() -> None:
    """Known answers of Random123's kat_vectors for philox4x32-10."""
    ones = 0xFFFFFFFF
    assert philox((0, 0, 0, 0), (0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    assert philox((ones,) * 4, (ones, ones)) == (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    assert philox(pi, (0xA4093822, 0x299F31D0)) == (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)


def test_philox_agrees_with_numpy() -> None:
    """NumPy's Philox is the 64-bit variant; the spread of ours must be as even as its."""
    ours = np.array([uniform(seed=1, index=0, position=p) for p in range(20000)])
    counts, _ = np.histogram(ours, bins=20, range=(0.0, 1.0))
    assert ours.min() >= 0.0
    assert ours.max() < 1.0
    assert abs(counts - 1000).max() < 5 * np.sqrt(1000)


def test_neighbouring_keys_differ() -> None:
    """Seeds, indices and positions that differ by one give unrelated numbers; negative seeds are seeds."""
    base = uniform(5, 0, 10)
    others = [uniform(6, 0, 10), uniform(5, 1, 10), uniform(5, 0, 11), uniform(-5, 0, 10), uniform(5 + 2**40, 0, 10)]
    assert len({base, *others}) == 6
    assert base == uniform(5, 0, 10)
