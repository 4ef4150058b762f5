"""A comparison of policies as a chart: throughput, latency, KV memory by use, dollars.

Knows: how the figures are drawn; matplotlib, the `plot` extra, if it is there. Does not know: what they mean.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from quire.errors import InvalidSetting, StartError

FORMATS = (".png", ".svg", ".pdf")
USES = (("held_share", "#2f6f4f"), ("reserved_share", "#d9a441"), ("fragmented_share", "#b5483a"))
BARS = "#3b6ea5"


def check_chart(path: Path | None) -> None:
    """Refuse, before anything is measured, a chart that could not be drawn."""
    if path is None:
        return
    if path.suffix.lower() not in FORMATS:
        raise InvalidSetting("--plot names no picture", got=path.name, allowed=", ".join(FORMATS))
    if find_spec("matplotlib") is None:
        raise InvalidSetting("--plot needs matplotlib, which is not installed", hint="pip install 'quire[plot]'")


def draw_chart(found: dict[str, Any], path: Path) -> None:
    """Four panels into `path`; raises `StartError` where it cannot be written."""
    from matplotlib.figure import Figure

    rows = found["policies"]
    names = [row["policy"].replace("-", "-\n") for row in rows]
    figure = Figure(figsize=(12, 7), layout="constrained")
    (throughput, latency), (memory, money) = figure.subplots(2, 2)
    _bars(throughput, names, [row["output_tokens_per_s"] for row in rows], "output tokens a second")
    _bars(latency, names, [row["latency_s"]["mean"] for row in rows], "seconds to the last token: mean, and p99")
    latency.scatter(names, [row["latency_s"]["p99"] for row in rows], color="black", marker="_", s=200, zorder=3)
    _bars(money, names, [row["dollars_per_million_output_tokens"] for row in rows], "dollars per million output tokens")
    below = [0.0] * len(rows)
    for use, colour in USES:
        shares = [100 * row["kv"][use] for row in rows]
        memory.bar(names, shares, bottom=below, color=colour, label=use.removesuffix("_share"))
        below = [low + more for low, more in zip(below, shares, strict=True)]
    memory.set_ylim(0, 100)
    memory.set_title("KV memory by use, %")
    memory.legend()
    figure.suptitle(_title(found))
    try:
        figure.savefig(path)
    except OSError as problem:
        raise StartError("the chart cannot be written", got=str(path), hint=str(problem)) from problem


def _bars(axes: Any, names: list[str], values: list[float], title: str) -> None:
    bars = axes.bar(names, values, color=BARS)
    axes.bar_label(bars, fmt="%.3g")
    axes.margins(y=0.1)
    axes.set_title(title)


def _title(found: dict[str, Any]) -> str:
    work = found.get("trace") or f"{found['input_tokens']} tokens in, {found['output_tokens']} out"
    return f"{found.get('model') or found['device']}: {found['requests']} requests, {work}"
