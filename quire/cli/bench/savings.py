"""`quire bench savings`: the same requests under several policies, and what each makes of time, memory and money.

Knows: the command's options. Does not know: the policies (`sim/savings`, `sim/peers`), or how they are run and shown.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from quire.cli.flags import with_settings
from quire.settings import EngineSettings

Model = Annotated[str | None, typer.Argument(help="A folder or hub id. Default: bundled.", metavar="[MODEL]")]
Requests = Annotated[int, typer.Option("--requests", help="Requests; of a trace so many, evenly spread over it.")]
InputTokens = Annotated[int, typer.Option("--input-tokens", help="Random prompt tokens of each request.")]
OutputTokens = Annotated[int, typer.Option("--output-tokens", help="Tokens drawn by each request.")]
Trace = Annotated[
    Path | None,
    typer.Option("--trace", help="Lengths and order of a recorded trace instead: Azure, BurstGPT, Mooncake."),
]
Rate = Annotated[
    float | None,
    typer.Option("--rate", help="Mean requests a second: Poisson, or a trace's own times stretched. Default: at once."),
]
Concurrency = Annotated[
    int | None, typer.Option("--concurrency", help="So many users instead, each asking again when answered.")
]
Policies = Annotated[
    str, typer.Option("--policies", help="With commas: one, static, contiguous, quire. The first is compared with.")
]
ReserveTokens = Annotated[
    str,
    typer.Option("--reserve-tokens", help="What contiguous reserves, with commas. Default: --max-model-len alone."),
]
Price = Annotated[float, typer.Option("--price-per-hour", help="Dollars for an hour of the machine.")]
Repeat = Annotated[int, typer.Option("--repeat", help="Rounds of all policies in turn; each one's median is shown.")]
Seed = Annotated[int, typer.Option("--seed", help="Where ids and arrivals come from.")]
Simulate = Annotated[
    str | None,
    typer.Option(
        "--simulate",
        metavar="LAW",
        help="No model, a modelled device: h200-llama-3.1-8b, a100-40gb-opt-13b, or prices as for `quire sim --law`.",
    ),
]
NumBlocks = Annotated[
    int | None, typer.Option("--num-blocks", help="KV blocks of a modelled device. Default: its own, 8192 by prices.")
]
Plot = Annotated[Path | None, typer.Option("--plot", help="Draw the comparison into this PNG or SVG file.")]
Record = Annotated[Path | None, typer.Option("--record", help="Keep the result with machine and date in this file.")]
Revision = Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a hub id.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout; the table goes to stderr.")]


@with_settings(engine=EngineSettings)
def savings(
    model: Model = None,
    requests: Requests = 32,
    input_tokens: InputTokens = 128,
    output_tokens: OutputTokens = 128,
    trace: Trace = None,
    rate: Rate = None,
    concurrency: Concurrency = None,
    policies: Policies = "one,static,contiguous,quire",
    reserve_tokens: ReserveTokens = "",
    price_per_hour: Price = 1.0,
    repeat: Repeat = 1,
    seed: Seed = 1,
    simulate: Simulate = None,
    num_blocks: NumBlocks = None,
    plot: Plot = None,
    record: Record = None,
    revision: Revision = None,
    as_json: AsJson = False,
    *,
    engine: EngineSettings,
) -> None:
    """The same requests under four policies, by the same kernels: throughput, latency, KV memory by use, dollars."""
    from quire.cli.bench.savings_chart import check_chart, draw_chart
    from quire.cli.bench.savings_load import Load
    from quire.cli.bench.savings_record import write_record
    from quire.cli.bench.savings_report import table
    from quire.cli.bench.savings_run import Asked, run

    check_chart(plot)
    load = Load(requests, input_tokens, output_tokens, trace, rate, concurrency, seed)
    asked = Asked(model, revision, load, policies, reserve_tokens, price_per_hour, repeat, simulate, num_blocks)
    found = run(asked, engine, lambda text: typer.echo(text, err=True))
    typer.echo("\n".join(table(found)), err=as_json)
    if as_json:
        typer.echo(json.dumps(found))
    if record is not None:
        write_record(record, found)
    if plot is not None:
        draw_chart(found, plot)
