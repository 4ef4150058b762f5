"""`quire bench kernels`: every op at a model's shapes, with its rate and its share of the machine's measured roof.

Knows: how the figures are shown. Does not know: how they are measured (`measure/kernels.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from quire.cli.resolve import resolve
from quire.errors import InvalidSetting
from quire.hardware import probe
from quire.measure.kernels import OPS, Wanted, measure_kernels
from quire.measure.products import DEFAULT_FORMATS
from quire.measure.shapes import Shape, named_shape, shape_of
from quire.model_spec import read_model_spec
from quire.ops.device import Device

HEAD = f"{'op':<11}{'shape':<24}{'rows':>5}  {'format':<13}{'time':>10}{'GB/s':>9}{'GFLOP/s':>10}{'of roof':>9}  bound"


@dataclass(frozen=True, slots=True)
class Asked:
    """The command's options as they were typed."""

    model: str | None
    revision: str | None
    shape: str | None
    op: str
    format: str
    rows: str
    threads: int | None
    repeat: int

    def wanted(self) -> Wanted:
        """The options that say what to measure. Raises `InvalidSetting`."""
        formats = _listed(self.format) or DEFAULT_FORMATS
        wanted = Wanted(_listed(self.op) or OPS, formats, _numbers(self.rows), repeat=self.repeat)
        wanted.check()
        return wanted

    def find_shape(self) -> Shape:
        """The shape that is named, or the model's. Raises `StartError`."""
        if self.shape is not None:
            return named_shape(self.shape)
        found = resolve(self.model, self.revision)
        return shape_of(found.name, read_model_spec(found.folder))


def run(asked: Asked, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure and say each row as it comes; the whole is returned as plain data. Raises `QuireError`."""
    wanted, shape, hardware = asked.wanted(), asked.find_shape(), probe()
    say(f"{shape.name} on {hardware.cpu_model}")
    say(HEAD)
    with Device(asked.threads or hardware.num_cores) as device:
        result = {"cpu": hardware.cpu_model} | measure_kernels(device, shape, wanted, lambda row: say(row_line(row)))
    for line in roof_lines(result):
        say(line)
    return result


def row_line(row: dict[str, Any]) -> str:
    """One row of the table."""
    rate = f"{row['gflop_per_s']:.0f}" if row["gflop_per_s"] else "-"
    return (
        f"{row['op']:<11}{row['detail']:<24}{row['rows']:>5}  {row['format']:<13}{_time(row['microseconds']):>10}"
        f"{row['gb_per_s']:>9.1f}{rate:>10}{row['percent_of_roof']:>7.0f} %  {row['bound']}"
    )


def roof_lines(result: dict[str, Any]) -> list[str]:
    """The roof, and where it was measured."""
    roof = result["roof"]
    lines = [
        f"roof of {result['threads']} threads, {result['isa']}; medians of {result['repeat']}, in turn with the ops",
        f"  read from DRAM {roof['dram_read_gb_per_s']:.1f} GB/s, from L2 {roof['l2_read_gb_per_s']:.0f} GB/s",
    ]
    for dtype, peak in roof["peak_gflop_per_s"].items():
        lines.append(f"  {dtype:<9} {peak:.0f} GFLOP/s ({roof['instruction'][dtype]})")
    return lines


def _time(microseconds: float) -> str:
    return f"{microseconds:.1f} us" if microseconds < 1000 else f"{microseconds / 1000:.2f} ms"


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _numbers(text: str) -> tuple[int, ...]:
    parts = _listed(text)
    if not parts or not all(part.isdecimal() for part in parts):
        raise InvalidSetting("--rows is not a list of numbers", got=text or "nothing", allowed="such as 1,8,32")
    return tuple(int(part) for part in parts)
