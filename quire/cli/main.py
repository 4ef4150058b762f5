"""The table of commands, and the one door through which their errors leave.

Knows: names, arguments and help of the commands. Does not know: what they do; each is imported when it is called, so
that `quire --help` is quick.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from quire.cli.bench.commands import bench
from quire.cli.bench.flood import flood
from quire.cli.bench.overload import overload
from quire.cli.bench.savings import savings
from quire.cli.bench.sim_check import sim_check
from quire.cli.bench.stall import stall
from quire.cli.flags import with_settings
from quire.cli.keys import keys
from quire.cli.sim import sim
from quire.cli.standard_streams import open_missing
from quire.errors import QuireError
from quire.settings import EngineSettings, ServerSettings

INTERRUPTED = 130  # 128 + SIGINT, what shells expect of a command that Ctrl-C ended

Model = Annotated[
    str | None, typer.Argument(help="A folder or a hub id. Default: the bundled model.", metavar="[MODEL]")
]
ModelOption = Annotated[str | None, typer.Option("--model", help="A folder or a hub id. Default: the bundled model.")]
Revision = Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a hub id.")]
MaxTokens = Annotated[
    int | None, typer.Option("--max-tokens", help="Longest answer in tokens. Default: what the context leaves.")
]
Temperature = Annotated[
    float | None, typer.Option("--temperature", help="0 (always the likeliest token) to 2. Default: the model's own.")
]
Seed = Annotated[int | None, typer.Option("--seed", help="Makes drawing reproducible. Default: a new one each time.")]
System = Annotated[str | None, typer.Option("--system", help="A system message before the conversation.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of text.")]


class Commands(TyperGroup):
    """Says our errors as one sentence on stderr, without a traceback, and leaves with their exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except QuireError as problem:
            typer.echo(f"quire: {problem.message}", err=True)
            raise typer.Exit(problem.exit_code) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Serve large language models: `quire serve` and talk to http://127.0.0.1:8000/v1.",
)
app.add_typer(bench, name="bench")
app.add_typer(keys, name="keys")
app.command()(sim)
bench.command()(flood)
bench.command()(overload)
bench.command()(savings)
bench.command("sim-check")(sim_check)
bench.command()(stall)


def _show_version(wanted: bool) -> None:
    if wanted:
        from quire import __version__

        typer.echo(f"quire {__version__}")
        raise typer.Exit


@app.callback()
def top(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """What stands before a command."""


@app.command()
@with_settings(engine=EngineSettings, server=ServerSettings)
def serve(model: Model = None, revision: Revision = None, *, engine: EngineSettings, server: ServerSettings) -> None:
    """Serve a model over an OpenAI-compatible HTTP API."""
    from quire.cli.serve import serve

    raise typer.Exit(serve(model, revision, engine, server))


@app.command("run")
@with_settings(engine=EngineSettings)
def ask(
    prompt: Annotated[str, typer.Argument(help="What to ask; `-` reads it from stdin.")],
    model: ModelOption = None,
    revision: Revision = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    seed: Seed = None,
    system: System = None,
    as_json: AsJson = False,
    raw: Annotated[bool, typer.Option("--raw", help="Continue the prompt as it is, without a chat template.")] = False,
    *,
    engine: EngineSettings,
) -> None:
    """Ask once; the answer streams to stdout."""
    from quire.cli.run import Question, answer

    text = sys.stdin.read() if prompt == "-" else prompt
    answer(Question(text, system, raw), model, revision, engine, (max_tokens, temperature, seed), as_json)


@app.command()
@with_settings(engine=EngineSettings)
def render(
    prompt: Annotated[str, typer.Argument(help="What to ask; @FILE takes a request body in JSON; `-` reads stdin.")],
    model: ModelOption = None,
    revision: Revision = None,
    system: System = None,
    as_json: Annotated[bool, typer.Option("--json", help="Text, ids and parameters as JSON instead of text.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="A prompt as it is, without a chat template.")] = False,
    chat_template: Annotated[
        str | None, typer.Option("--chat-template", help="A Jinja file to use instead of the model's own.")
    ] = None,
    *,
    engine: EngineSettings,
) -> None:
    """Show the exact text and token ids that a request would compute, without computing it."""
    from quire.cli.render import render
    from quire.cli.run import Question

    text = sys.stdin.read() if prompt == "-" else prompt
    render(Question(text, system, raw), model, revision, engine, chat_template, as_json)


@app.command()
@with_settings(engine=EngineSettings)
def chat(
    model: Model = None,
    revision: Revision = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    seed: Seed = None,
    system: System = None,
    *,
    engine: EngineSettings,
) -> None:
    """Talk to a model; /help lists what can be typed besides messages."""
    from quire.cli.chat import chat

    chat(model, revision, engine, (max_tokens, temperature, seed), system)


@app.command()
@with_settings(engine=EngineSettings)
def replay(
    log: Annotated[Path, typer.Argument(help="A file that `quire serve --request-log` wrote.")],
    request: Annotated[
        str | None, typer.Option("--id", help="Only this request: its x-request-id, or its answer's id.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="A folder or a hub id. Default: the folder that was served.")
    ] = None,
    url: Annotated[str | None, typer.Option("--url", help="Ask this server, not a model in this process.")] = None,
    api_key: Annotated[str | None, typer.Option("--api-key", help="Its key.")] = None,
    as_json: AsJson = False,
    *,
    engine: EngineSettings,
) -> None:
    """Ask logged requests again and compare ids and log probabilities bit for bit; exit code 1 if any differs."""
    from quire.cli.replay import Where, replay

    raise typer.Exit(replay(log, request, Where(url, api_key, model), engine, as_json))


@app.command()
@with_settings(engine=EngineSettings, server=ServerSettings)
def limits(
    model: Model = None,
    revision: Revision = None,
    as_json: AsJson = False,
    *,
    engine: EngineSettings,
    server: ServerSettings,
) -> None:
    """Print every limit that a server with these options would hold requests, connections and files to."""
    from quire.cli.limits import show

    show(model, revision, engine, server, as_json)


@app.command()
@with_settings(engine=EngineSettings)
def doctor(model: Model = None, revision: Revision = None, as_json: AsJson = False, *, engine: EngineSettings) -> None:
    """Show the plan, the kernels chosen and why, memory by part, versions; and check that a model answers."""
    from quire.cli.doctor import doctor

    raise typer.Exit(doctor(model, revision, engine, as_json))


def run() -> None:
    """The `quire` command."""
    open_missing()
    try:
        app()
    except BrokenPipeError:  # the reader of our output has had enough: `quire run ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
