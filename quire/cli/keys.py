"""`quire keys`: make a key for a tenant. Knows: randomness, the file's form. Does not know: servers, or old keys."""

from __future__ import annotations

import secrets
from typing import Annotated

import typer

from quire.errors import InvalidSetting

PREFIX = "qk-"
KEY_BYTES = 32

keys = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Keys of tenants, for `quire serve --api-keys`.")


@keys.callback()
def top() -> None:
    """Keys of tenants, for `quire serve --api-keys`."""


@keys.command()
def new(
    name: Annotated[str, typer.Argument(help="Whose key it is: letters, digits, - and _.")],
    weight: Annotated[float, typer.Option("--weight", help="Share of the machine beside other tenants.")] = 1.0,
    deadline_ms: Annotated[
        float | None,
        typer.Option("--deadline-ms", help="Deadline of the first token, for requests that name none."),
    ] = None,
    priority: Annotated[
        int, typer.Option("--priority", help="The lowest number that its requests may ask for; lower is sooner.")
    ] = 0,
    max_concurrent: Annotated[
        int | None, typer.Option("--max-concurrent", help="Most requests that it may have inside at once.")
    ] = None,
) -> None:
    """Draw a key: its entry for the file goes to stdout, the key to stderr, once: `quire keys new bob >> FILE`."""
    from quire.tenancy.keys import Key, hash_of

    key = PREFIX + secrets.token_urlsafe(KEY_BYTES)
    try:
        entry = Key(name, hash_of(key), weight, deadline_ms, priority, max_concurrent)
    except InvalidSetting as problem:
        what = problem.what.removeprefix("--api-keys: ")
        raise InvalidSetting(what, got=problem.got, allowed=problem.allowed) from None
    typer.echo(entry.as_toml())
    typer.echo(f"The key of {name}, which is shown only now:\n{key}", err=True)
