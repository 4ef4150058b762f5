"""How a script with targets ends: its figures as JSON or for people, met or missed for every target, the exit code.

Knows: a result's `targets`. Does not know: what was measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Result = dict[str, Any]


def figures(result: Result) -> None:
    """One line for each figure."""
    for name, value in result.items():
        if name != "targets":
            print(f"{name:34} {value}")


def report(result: Result, as_json: bool, show: Callable[[Result], None] = figures) -> int:
    """Print `result`, one line of JSON or what `show` prints and a line for each target; 1 if one was missed."""
    targets: dict[str, bool] = result["targets"]
    if as_json:
        print(json.dumps(result))
    else:
        show(result)
        for name, is_met in targets.items():
            print(f"{'met' if is_met else 'MISSED':8} {name}")
    return 0 if all(targets.values()) else 1
