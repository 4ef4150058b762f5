"""Every op at the shapes of one model, beside the roof of the machine measured in the same minutes.

Knows: which groups of cases there are, and their results as plain data. Does not know: how these are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from quire.errors import InvalidSetting
from quire.measure.attention import attention_cases, store_cases
from quire.measure.drawing import draw_cases
from quire.measure.products import DEFAULT_FORMATS, DEFAULT_ROWS, FORMATS, product_cases
from quire.measure.rowwise import rowwise_cases
from quire.measure.shapes import Shape
from quire.measure.timing import STREAM_BYTES, Case, Roof, Timed, time_cases
from quire.ops import roof
from quire.ops.device import Device

OPS = ("linear", "attention", "rope_store", "rowwise", "sample")
KV_DTYPES = ("bfloat16", "int8")
GIGA = 1e9


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to measure: all of it, or some ops, formats and numbers of rows."""

    ops: tuple[str, ...] = OPS
    formats: tuple[str, ...] = DEFAULT_FORMATS
    rows: tuple[int, ...] = DEFAULT_ROWS
    kv_dtypes: tuple[str, ...] = KV_DTYPES
    repeat: int = 3
    stream_bytes: int = STREAM_BYTES

    def check(self) -> None:
        """Refuse what nobody knows. Raises `InvalidSetting`."""
        for option, values, allowed in (("op", self.ops, OPS), ("format", self.formats, tuple(FORMATS))):
            for value in values:
                if value not in allowed:
                    raise InvalidSetting(f"--{option} has no such value", got=value, allowed=", ".join(allowed))
        for option, number in (("repeat", self.repeat), ("rows", min(self.rows))):
            if number < 1:
                raise InvalidSetting(f"--{option} is too small", got=number, allowed="1 or more")


def measure_kernels(
    device: Device, shape: Shape, wanted: Wanted, tell: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Rows of figures, and the roof; `tell` gets each row as soon as it is there.

    A row: op, detail, rows, format, microseconds, gb_per_s, gflop_per_s, percent_of_roof, bound. The roof is measured
    again for every group of cases that were timed in turn, and a row's share is that of its own group's roof.
    """
    rows, roofs = [], []
    for cases in _groups(device, shape, wanted):
        roofs.append(Roof(device, wanted.stream_bytes))
        for each in time_cases(cases, roofs[-1], wanted.repeat):
            rows.append(as_row(each))
            tell(rows[-1])
    return {"shape": shape.name, "isa": device.isa, "threads": device.threads, "repeat": wanted.repeat} | {
        "roof": roof_figures(device, roofs),
        "rows": rows,
    }


def as_row(timed: Timed) -> dict[str, Any]:
    """One result as plain data."""
    case = timed.case
    return {
        "op": case.op,
        "detail": case.detail,
        "rows": case.rows,
        "format": case.format,
        "microseconds": _short(timed.seconds * 1e6),
        "gb_per_s": _short(case.num_bytes / timed.seconds / GIGA),
        "gflop_per_s": _short(case.num_ops / timed.seconds / GIGA),
        "percent_of_roof": _short(100 * timed.share),
        "bound": timed.bound,
    }


def roof_figures(device: Device, roofs: Sequence[Roof]) -> dict[str, Any]:
    """Medians over the groups: what is read a second, and the peak of each multiply, with its instruction."""
    return {
        "dram_read_gb_per_s": _short(median(each.read for each in roofs) / GIGA),
        "l2_read_gb_per_s": _short(median(each.cached_read for each in roofs) / GIGA),
        "peak_gflop_per_s": {dtype: _short(median(each.peak(dtype) for each in roofs) / GIGA) for dtype in roof.DTYPES},
        "instruction": {dtype: roof.instruction(device, dtype) for dtype in roof.DTYPES},
    }


def _groups(device: Device, shape: Shape, wanted: Wanted) -> Iterator[list[Case]]:
    if "linear" in wanted.ops:
        for matrix in shape.matrices:
            yield list(product_cases(device, shape, matrix, wanted.formats, wanted.rows, wanted.stream_bytes))
    if "attention" in wanted.ops:
        yield from _in_turn(
            attention_cases(device, shape, wanted.kv_dtypes, wanted.stream_bytes), len(wanted.kv_dtypes)
        )
    if "rope_store" in wanted.ops:
        yield list(store_cases(device, shape, wanted.kv_dtypes))
    if "rowwise" in wanted.ops:
        yield list(rowwise_cases(device, shape))
    if "sample" in wanted.ops:
        yield list(draw_cases(device, shape))


def _in_turn(cases: Iterable[Case], size: int) -> Iterator[list[Case]]:
    group: list[Case] = []
    for case in cases:
        group.append(case)
        if len(group) == size:
            yield group
            group = []


def _short(value: float) -> float:
    return float(f"{value:.4g}")
