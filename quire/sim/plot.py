"""Knows: how a replay looks as a picture. Does not know: how it was made. Needs matplotlib, the extra `plot`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quire.errors import InvalidSetting, StartError
from quire.sim.replay import SimReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = (".png", ".svg")
COLOURS = ("#2a6f97", "#c1121f", "#588157", "#e09f3e", "#6d597a", "#343a40")
SIZE_INCHES = (11.0, 10.0)


def check_plot(path: Path) -> None:
    """Raise before anything is simulated if the picture could not be drawn or written."""
    if path.suffix.lower() not in KINDS:
        raise InvalidSetting(
            "--plot is neither of the pictures that are drawn", got=str(path), allowed=" or ".join(KINDS)
        )
    if not path.absolute().parent.is_dir():
        raise InvalidSetting("--plot is in a folder that is not there", got=str(path))
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise StartError("--plot needs matplotlib, which is not installed", hint="pip install 'quire[plot]'") from None


def plot(path: Path, reports: Mapping[str, SimReport]) -> None:
    """All `reports` by name in one picture: rates, times, memory over time, fairness."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(4, 2)
    _bars(axes[0][0], reports, {"output tokens/s": "output_tokens_per_s"})
    _bars(axes[0][1], reports, {"requests/s": "requests_per_s", "goodput": "goodput_rps"})
    _percentiles(axes[1][0], reports, "ttft_s", "time to first token, s")
    _percentiles(axes[1][1], reports, "itl_s", "between tokens, s")
    _over_time(axes[2][0], reports, "used_share", "KV blocks in use, share")
    _over_time(axes[2][1], reports, "waste_share", "KV slots wasted, share of those in use")
    _over_time(axes[3][0], reports, "num_waiting", "requests waiting")
    _bars(axes[3][1], reports, {"fairness (Jain)": "fairness", "computed again, share": "repeated_share"})
    axes[2][0].legend(fontsize="small")
    figure.savefig(path)


def _bars(axes: Axes, reports: Mapping[str, SimReport], figures: Mapping[str, str]) -> None:
    width = 0.8 / len(reports)
    for number, (name, report) in enumerate(reports.items()):
        places = [place + number * width for place in range(len(figures))]
        heights = [getattr(report, key) for key in figures.values()]
        axes.bar(places, heights, width, color=COLOURS[number % len(COLOURS)], label=name)
    axes.set_xticks([place + 0.4 - width / 2 for place in range(len(figures))], list(figures))


def _percentiles(axes: Axes, reports: Mapping[str, SimReport], key: str, title: str) -> None:
    parts = ("p50", "p90", "p99")
    width = 0.8 / len(reports)
    for number, report in enumerate(reports.values()):
        places = [place + number * width for place in range(len(parts))]
        heights = [getattr(getattr(report, key), part) for part in parts]
        axes.bar(places, heights, width, color=COLOURS[number % len(COLOURS)])
    axes.set_xticks([place + 0.4 - width / 2 for place in range(len(parts))], parts)
    axes.set_yscale("log")
    axes.set_title(title, fontsize="medium")


def _over_time(axes: Axes, reports: Mapping[str, SimReport], key: str, title: str) -> None:
    for number, (name, report) in enumerate(reports.items()):
        times = [sample.at_s for sample in report.samples]
        values: list[Any] = [getattr(sample, key) for sample in report.samples]
        axes.plot(times, values, color=COLOURS[number % len(COLOURS)], label=name, linewidth=1.0)
    axes.set_xlabel("modelled s", fontsize="small")
    axes.set_title(title, fontsize="medium")
