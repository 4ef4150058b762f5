"""Cases of the draw: greedy, with truncation, with log probabilities.

Knows: rows of logits as a head leaves them. Does not know: clocks, tables.

Legend: R rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from quire.measure.shapes import Shape
from quire.measure.timing import Case
from quire.ops.device import Device
from quire.ops.sample import ROW, Rows, make_drawn, sample

ROWS = (1, 32)
WAYS = {
    "greedy": {"inv_temperature": 0.0},
    "top_p 0.9": {"inv_temperature": 1.0, "top_p": 0.9},
    "top_k 40, 5 logprobs": {"inv_temperature": 1.0, "top_k": 40, "num_top": 5},
}


def draw_cases(device: Device, shape: Shape) -> Iterator[Case]:
    """Rows that the head has just written: one row lies in the cache, many come from memory."""
    rng = np.random.default_rng(5)
    for num_rows in ROWS:
        logits_RV = rng.standard_normal((num_rows, shape.vocab_size), np.float32) * np.float32(3)
        for name in WAYS:
            yield _draw_case(device, logits_RV, name)


def _draw_case(device: Device, logits_RV: np.ndarray, name: str) -> Case:
    num_rows = len(logits_RV)
    params_R = np.zeros(num_rows, ROW)
    params_R["top_p"], params_R["repetition"], params_R["given"], params_R["num_top"] = 1.0, 1.0, -1, -1
    params_R["num_draws"], params_R["first_draw"] = 1, np.arange(num_rows)
    for field, value in WAYS[name].items():
        params_R[field] = value
    none = np.empty(0, np.int32), np.empty(0, np.float32)
    rows, drawn = Rows(params_R, np.zeros(num_rows, np.int32), *none), make_drawn(num_rows, num_rows, 5)

    def run(number: int) -> None:
        sample(device, logits_RV, rows, drawn)

    num_bytes = logits_RV.nbytes
    return Case("sample", name, num_rows, "float32", num_bytes, 0, "float32", run, cached=num_bytes < 2**21)
