"""Command line flags made from the settings' dataclasses, so that an option is written down once.

Knows: dataclass fields and typer. Does not know: what an option means, or which values are right (`settings.check`).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import Field, fields
from typing import Annotated, Any, get_type_hints

import typer

from quire.settings import EngineSettings, ServerSettings, check, flag

Command = Callable[..., None]


def with_settings(**groups: type[EngineSettings] | type[ServerSettings]) -> Callable[[Command], Command]:
    """Give a command one flag for each field of `groups`; it receives them as checked dataclasses by group name.

    Raises `InvalidSetting` (when the command is called) for values that no model and no machine could make right.
    """

    def decorate(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True).parameters
        kept = [parameter for name, parameter in own.items() if name not in groups]
        made = [parameter for kind in groups.values() for parameter in _parameters(kind)]

        @functools.wraps(command)
        def call(**values: Any) -> None:
            built = {group: _build(kind, values) for group, kind in groups.items()}
            command(**values, **built)

        parameters = [*kept, *made]
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return call

    return decorate


def spelling(entry: Field[Any]) -> str:
    """How the option is declared: `--port`, or `--prefix-cache/--no-prefix-cache` for one that is on by default."""
    if isinstance(entry.default, bool):
        name = entry.name.replace("_", "-")
        return f"--{name}/--no-{name}"
    return flag(entry.name)


def _parameters(kind: type[EngineSettings] | type[ServerSettings]) -> list[inspect.Parameter]:
    hints = get_type_hints(kind)
    return [_parameter(entry, hints[entry.name]) for entry in fields(kind)]


def _parameter(entry: Field[Any], hint: Any) -> inspect.Parameter:
    repeated = hint == tuple[str, ...]
    default: Any = entry.default
    option = typer.Option(
        spelling(entry),
        help=entry.metadata["help"],
        metavar="|".join(entry.metadata["choices"]) or ("<str>" if repeated else None),
        show_default=default not in (None, (), False),
    )
    return inspect.Parameter(
        entry.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=list(default) if repeated else default,
        annotation=Annotated[list[str] if repeated else hint, option],
    )


def _build(
    kind: type[EngineSettings] | type[ServerSettings], values: dict[str, Any]
) -> EngineSettings | ServerSettings:
    taken: dict[str, Any] = {entry.name: values.pop(entry.name) for entry in fields(kind)}
    for name, value in taken.items():
        taken[name] = tuple(value) if isinstance(value, list) else value
    settings = kind(**taken)
    check(settings)
    return settings
