"""Comparisons that need no device. Knows: rows. Does not know: any op."""

from __future__ import annotations

import os

from benchmarks.gpu.context import Context


def compare(context: Context, num_wrong: int, num_all: int) -> None:
    """Counts as it is told; dies where everything is wrong."""
    if num_wrong == num_all:
        os._exit(3)
    context.rows.check("some", num_wrong, num_all, "one of them" if num_wrong else "")
