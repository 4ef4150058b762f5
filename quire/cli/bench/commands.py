"""The commands of `quire bench`: their arguments, and how their results are shown.

Knows: names and help. Does not know: how anything is measured; that is imported when a command is called.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from quire.cli.bench.load_options import AsJson
from quire.cli.flags import with_settings
from quire.settings import EngineSettings

bench = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Measure: the engine, a server, the cache.")


def show(result: dict[str, Any], as_json: bool) -> None:
    """A result on stdout: JSON, or one line a figure."""
    if as_json:
        typer.echo(json.dumps(result))
        return
    for name, value in result.items():
        if name == "runs":
            continue
        if isinstance(value, dict):
            value = "  ".join(f"{key} {inner}" for key, inner in value.items()) or "-"
        typer.echo(f"{name:<26} {'-' if value is None else value}")


def tell(text: str) -> None:
    """Talk on stderr."""
    typer.echo(text, err=True)


@bench.command()
@with_settings(engine=EngineSettings)
def offline(
    model: Annotated[
        str | None, typer.Argument(help="A folder or hub id. Default: bundled.", metavar="[MODEL]")
    ] = None,
    requests: Annotated[int, typer.Option("--requests", help="Requests submitted at once.")] = 8,
    input_tokens: Annotated[
        int, typer.Option("--input-tokens", help="Random prompt tokens of each request's own.")
    ] = 128,
    output_tokens: Annotated[int, typer.Option("--output-tokens", help="Tokens drawn by each request.")] = 64,
    shared_prefix_tokens: Annotated[
        int,
        typer.Option(
            "--shared-prefix-tokens", help="Prompt tokens that all requests have in common, before their own."
        ),
    ] = 0,
    repeat: Annotated[int, typer.Option("--repeat", help="Measured runs, each with new ids; medians are shown.")] = 3,
    warmup: Annotated[int, typer.Option("--warmup", help="Runs before them that are not counted.")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="Where the random ids come from.")] = 1,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a hub id.")] = None,
    as_json: AsJson = False,
    *,
    engine: EngineSettings,
) -> None:
    """The engine alone: random ids, greedy, end of text ignored, everything submitted at once."""
    from quire.cli.bench.offline import Work, measure
    from quire.cli.prepare import describe, prepare

    work = Work(requests, input_tokens, output_tokens, shared_prefix_tokens, repeat, warmup, seed)
    work.check()
    if engine.itl_target is None:
        engine = replace(engine, itl_target=0.0)  # nobody waits for single tokens
    prepared = prepare(model, revision, engine)
    for line in describe(prepared):
        tell(line)
    show(measure(prepared, work, tell), as_json)


@bench.command()
def kernels(
    model: Annotated[
        str | None,
        typer.Argument(help="A folder or hub id for its shapes. Default: bundled.", metavar="[MODEL]"),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option("--shape", help="Shapes by name instead: qwen3-0.6b, llama-3.2-1b, smollm2-135m."),
    ] = None,
    op: Annotated[
        str, typer.Option("--op", help="Only these, with commas: linear, attention, rope_store, rowwise, sample.")
    ] = "",
    format: Annotated[str, typer.Option("--format", help="Only these weight formats, with commas. Default: all.")] = "",
    rows: Annotated[str, typer.Option("--rows", help="Rows of the matrix products, with commas.")] = "1,8,32,128,512",
    threads: Annotated[
        int | None, typer.Option("--threads", help="Compute threads. Default: the cores this process may use.")
    ] = None,
    repeat: Annotated[int, typer.Option("--repeat", help="Samples of each, in turn; medians are shown.")] = 3,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a hub id.")] = None,
    as_json: AsJson = False,
) -> None:
    """Every op at a model's shapes: its rate, and per cent of what this machine can do at most, measured beside it."""
    from quire.cli.bench.kernels import Asked, run

    asked = Asked(model, revision, shape, op, format, rows, threads, repeat)
    result = run(asked, tell if as_json else typer.echo)
    if as_json:
        typer.echo(json.dumps(result))


@bench.command()
def quality(
    model: Annotated[
        str | None, typer.Argument(help="A folder or hub id. Default: bundled.", metavar="[MODEL]")
    ] = None,
    text: Annotated[
        Path | None, typer.Option("--text", help="UTF-8 text to read. Default: drawn by the model at temperature 1.")
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", help="Most tokens of the text.")] = 20_000,
    window: Annotated[
        int | None, typer.Option("--window", help="Tokens read together. Default: the context, at most 1024.")
    ] = None,
    stride: Annotated[
        int | None, typer.Option("--stride", help="From one window to the next. Default: half a window.")
    ] = None,
    variants: Annotated[
        str,
        typer.Option("--variants", help="Number formats, with commas, such as int8-g128,int4-g32/int8. Default: many."),
    ] = "",
    threads: Annotated[
        int | None, typer.Option("--threads", help="Compute threads. Default: the cores this process may use.")
    ] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a hub id.")] = None,
    as_json: AsJson = False,
) -> None:
    """What number formats cost: perplexity, KL divergence and top-1 agreement against bfloat16, on a text."""
    from quire.cli.bench.quality import Asked, lines, run

    result = run(Asked(model, revision, text, tokens, window, stride, variants, threads), tell)
    typer.echo(json.dumps(result) if as_json else "\n".join(lines(result)))


@bench.command("kv-waste")
def kv_waste(
    trace: Annotated[Path, typer.Argument(help="Arrivals and lengths: Azure or BurstGPT .csv, Mooncake .jsonl.")],
    requests: Annotated[int | None, typer.Option("--requests", help="Only the first so many. Default: all.")] = None,
    num_blocks: Annotated[int, typer.Option("--num-blocks", help="Blocks of the modelled KV cache.")] = 8192,
    block_size: Annotated[int, typer.Option("--block-size", help="Tokens per block.")] = 16,
    max_num_seqs: Annotated[int, typer.Option("--max-num-seqs", help="Most sequences in one step.")] = 256,
    max_num_batched_tokens: Annotated[
        int, typer.Option("--max-num-batched-tokens", help="Most tokens in one step.")
    ] = 2048,
    speed: Annotated[float, typer.Option("--speed", help="Arrivals so many times as fast as recorded.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Replay a trace through the real scheduler and block pool: how much KV memory is reserved and holds nothing."""
    from quire.cli.bench.kv_waste import as_lines, as_object
    from quire.sim.kv_waste import replay

    report = replay(
        trace,
        num_requests=requests,
        speed=speed,
        num_blocks=num_blocks,
        block_size=block_size,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        tell=lambda arrived, total: tell(f"{arrived:,} of {total:,} requests"),
    )
    if as_json:
        typer.echo(json.dumps(as_object(report, trace)))
    else:
        typer.echo("\n".join(as_lines(report)))


@bench.command()
def serve(
    url: Annotated[str, typer.Option("--url", help="The server's root, or its /v1.")] = "http://127.0.0.1:8000",
    model: Annotated[str, typer.Option("--model", help="Model to ask for. Default: the server's first.")] = "",
    workload: Annotated[
        str, typer.Option("--workload", metavar="random|shared-prefix|trace", help="What to send.")
    ] = "random",
    rate: Annotated[
        float | None,
        typer.Option("--rate", help="Mean requests a second. Default: a trace's own; else it must be given."),
    ] = None,
    requests: Annotated[int, typer.Option("--requests", help="Requests in all.")] = 64,
    input_tokens: Annotated[
        int, typer.Option("--input-tokens", help="Prompt tokens of each request's own, about.")
    ] = 128,
    output_tokens: Annotated[int, typer.Option("--output-tokens", help="Longest answer in tokens.")] = 64,
    shared_prefix_tokens: Annotated[
        int, typer.Option("--shared-prefix-tokens", help="Tokens in common, for --workload shared-prefix.")
    ] = 512,
    trace: Annotated[Path | None, typer.Option("--trace", help="The trace file, for --workload trace.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Use /v1/chat/completions instead of /v1/completions.")] = False,
    ignore_eos: Annotated[
        bool, typer.Option("--ignore-eos", help="Ask for full-length answers (quire and vLLM know this field).")
    ] = False,
    api_key: Annotated[str | None, typer.Option("--api-key", help="Sent as a bearer token.")] = None,
    user: Annotated[str | None, typer.Option("--user", help="Sent as `user`, which is a tenant to quire.")] = None,
    deadline_ms: Annotated[
        float | None, typer.Option("--deadline-ms", help="Sent as x-quire-deadline-ms with every request.")
    ] = None,
    ttft_goal: Annotated[
        float | None,
        typer.Option("--ttft-goal", help="Goodput: longest wait for a first token in seconds. Default: the deadline."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Where arrivals and prompts come from.")] = 0,
    timeout_s: Annotated[
        float, typer.Option("--timeout-s", help="Longest silence before a request has failed.")
    ] = 600.0,
    as_json: AsJson = False,
) -> None:
    """Open-loop load on any OpenAI-compatible server: requests go out when they are due, however it keeps up."""
    from quire.cli.bench.http_client import Target
    from quire.cli.bench.serve import Load, run
    from quire.cli.bench.workload import Sizes

    sizes = Sizes(input_tokens, output_tokens, shared_prefix_tokens)
    goal_s = deadline_ms / 1000 if ttft_goal is None and deadline_ms is not None else ttft_goal
    load = Load(workload, requests, rate, sizes, trace, seed, timeout_s, goal_s)
    target = Target(url, model, chat, ignore_eos, api_key, deadline_ms=deadline_ms, user=user)
    show(run(target, load), as_json)
