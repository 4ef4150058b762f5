"""`quire bench kv-waste`: what paging wastes on a trace, beside contiguous reservations of several sizes.

Knows: how the replay's report is shown. Does not know: how it is measured (`sim/kv_waste.py`).
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from quire.cli.bench.figures import significant
from quire.sim.kv_waste import WasteReport


def as_object(report: WasteReport, trace: Path) -> dict[str, Any]:
    """`waste_share` and `contiguous_waste_share` (by reservation in tokens), then the rest."""
    entries = asdict(report)
    shares = {str(size): significant(share) for size, share in sorted(report.contiguous_waste_share.items())}
    first = {"waste_share": significant(report.waste_share), "contiguous_waste_share": shares, "trace": trace.name}
    return first | {name: value for name, value in entries.items() if name not in first}


def as_lines(report: WasteReport) -> list[str]:
    """The same as a small table for people."""
    lines = [
        f"{report.num_requests:,} requests, {report.num_output_tokens:,} tokens drawn in {report.num_steps:,} steps",
        f"paged, blocks of {report.block_size:<14} {report.waste_share:7.2%} wasted",
    ]
    for size, share in sorted(report.contiguous_waste_share.items()):
        lines.append(f"contiguous, {size:>6} tokens each    {share:7.2%} wasted")
    if report.num_refused:
        lines.append(f"{report.num_refused} requests could never fit the pool and were left out")
    return lines
