"""Servers that tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from served import TEXT, Served, says, served


@pytest.fixture(scope="module")
def talker() -> Iterator[Served]:
    """Answers every prompt with TEXT, then ends."""
    with served(says(TEXT)) as server:
        yield server


@pytest.fixture(scope="module")
def rambler() -> Iterator[Served]:
    """Answers with tokens that depend on everything before them and never end of themselves but by chance."""
    with served() as server:
        yield server
