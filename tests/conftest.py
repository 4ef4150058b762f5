"""Fixtures for all tests. Knows: where shared data lies. Does not know: any part of the engine."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the repository (`../shared/data`); the test skips where it is absent."""
    path = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip("the shared test data (../shared/data beside the repository) is not here")
    return path
