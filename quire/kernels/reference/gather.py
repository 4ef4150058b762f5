"""Chosen rows.

Knows: NumPy. Does not know: what the rows hold.
"""

from __future__ import annotations

from typing import Any


def gather_rows(x_TH: Any, rows_R: Any) -> Any:
    """x[rows]."""
    return x_TH[rows_R].copy()
