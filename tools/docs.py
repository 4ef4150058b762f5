"""Writes the generated pages of docs/ from what they describe: `make docs`. `tests/test_docs.py` compares them.

Knows: where each fact is said in the code. Does not know: any fact itself.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from typer.main import get_command

from quire.cli.flags import spelling
from quire.cli.limits import value_of
from quire.cli.main import app as commands
from quire.limits import table
from quire.observe.metrics import Metrics
from quire.request import MAX_DEADLINE_MS
from quire.server import schema
from quire.server.app import ROUTES
from quire.server.fields import INERT, PAIRS, Guard
from quire.server.reply import SEED_HEADER
from quire.server.terms import DEADLINE_HEADER
from quire.settings import EngineSettings, ServerSettings

MODELS_OWN = "the model's context"
LIMITS = """\
Each is checked before the work that it bounds. `quire limits` prints them with the values that options and model give;
`--json` for programs. Where no status stands, nothing is answered: the note says what happens instead.
[Decision 026](../decisions/026-limits-in-one-table.md) says why.
"""
ROOT = Path(__file__).resolve().parents[1]
GENERATED = "<!-- Written by `make docs`; edit the code it is made from, not this page. -->\n"
BODIES = (
    schema.ChatBody,
    schema.CompletionBody,
    schema.TokenizeBody,
    schema.TokenizeChatBody,
    schema.DetokenizeBody,
)

HEADERS = (
    ("authorization", "request", "`Bearer <key>`, where the server has keys; `x-api-key` is the same."),
    (DEADLINE_HEADER, "request", f"Milliseconds within which the first token is of use, 1 to {MAX_DEADLINE_MS}."),
    (
        "x-request-id",
        "both",
        "The caller's, if it is short and plain, else a fresh one; it stands in the server's log.",
    ),
    ("retry-after", "429", "Whole seconds after which it is worth trying again; `retry-after-ms` says it finer."),
    (SEED_HEADER, "answer", "The seed of each prompt, given or drawn: sent as `seed`, it gives the same answer again."),
    ("x-quire-estimate-ms", "429", "Milliseconds to the first token, as things were."),
)


def options_page() -> str:
    """Every option of the engine and the server, then every command with all that it takes."""
    parts = ["# Options", GENERATED]
    groups = (
        ("Engine", EngineSettings, "serve, run, chat, doctor, bench offline"),
        ("Server", ServerSettings, "serve"),
    )
    for title, kind, where in groups:
        parts.append(f"## {title} options\n\nTaken by: `quire` {where}.\n")
        rows = [
            (
                f"`{spelling(entry)}`",
                " \\| ".join(entry.metadata["choices"]),
                _default(entry.default),
                entry.metadata["help"],
            )
            for entry in fields(kind)
        ]
        parts.append(_table(("option", "values", "default", "meaning"), rows))
    shared = {entry.metadata["help"] for kind in (EngineSettings, ServerSettings) for entry in fields(kind)}
    parts.append("## Commands\n")
    for name, command in _commands(get_command(commands), "quire"):
        parts.append(f"### {name}\n\n{(command.help or '').strip()}\n")
        own = [each for each in command.params if each.name != "help" and each.help not in shared]
        parts.append(_table(("argument or option", "default", "meaning"), [_parameter_row(each) for each in own]))
    return "\n".join(parts)


def _commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _parameter_row(parameter: Any) -> tuple[str, str, str]:
    if parameter.param_type_name == "argument":
        name = parameter.metavar or parameter.name.upper()
    else:
        name = "/".join([*parameter.opts, *parameter.secondary_opts])
    return f"`{name}`", _default(parameter.default), parameter.help or ""


def metrics_page() -> str:
    """Every metric that /metrics shows."""
    rows = [(f"`{doc.name}`", doc.kind, ", ".join(doc.labels), doc.doc) for doc in Metrics().docs()]
    return f"# Metrics\n{GENERATED}\nServed at `/metrics` in Prometheus' text form. Times are in seconds.\n\n" + _table(
        ("metric", "kind", "labels", "meaning"), rows
    )


def api_page() -> str:
    """Every route, the fields it takes, and what becomes of the others."""
    rows = [(f"`{method} {path}`", _deed(handle)) for path, method, handle in ROUTES]
    parts = [
        "# HTTP API",
        GENERATED,
        'Errors have OpenAI\'s shape: `{"error": {"message", "type", "param", "code"}}`. `null` means absent.\n',
        _table(("route", "what it does"), rows),
        "## Headers\n",
        _table(("header", "where", "meaning"), [(f"`{name}`", where, doc) for name, where, doc in HEADERS]),
    ]
    for body in BODIES:
        parts.append(f"## {_first_line(body).rstrip('.')}\n")
        parts.append(_table(("field", "type", "default"), list(_field_rows(body))))
        if guards := schema.GUARDS.get(body):
            parts.append("Accepted only with a value that asks for nothing:\n")
            parts.append(_table(("field", "accepted", "otherwise"), list(_guard_rows(guards, set(body.model_fields)))))
    parts.append("## Fields that are refused together\n")
    parts.append("Each alone is fine. Every other two are answered as both want.\n")
    parts.append(_table(("field", "and", "because"), list(_pair_rows())))
    parts.append("## Fields that are accepted and change nothing\n")
    parts.append(", ".join(f"`{name}`" for name in sorted(INERT)) + "\n")
    return "\n".join(parts)


def _field_rows(body: type[BaseModel]) -> Iterator[tuple[str, str, str]]:
    for name, field in body.model_fields.items():
        yield f"`{name}`", _type(field.annotation), "required" if field.is_required() else _json(field.default)


def _type(annotation: Any) -> str:
    """A type as JSON's writers read it: `Annotated` and `| None` are ours alone."""
    if get_origin(annotation) is Annotated:
        return _type(get_args(annotation)[0])
    inner = [_type(each) for each in get_args(annotation) if each is not type(None)]
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(inner)
    name = getattr(get_origin(annotation) or annotation, "__name__", str(annotation))
    return f"{name}[{', '.join(inner)}]" if inner else name


def _guard_rows(guards: Mapping[str, Guard], known: set[str]) -> Iterator[tuple[str, str, str]]:
    for name, guard in guards.items():
        if name not in known:
            harmless = ", ".join(_json(value) for value in guard.harmless)
            yield f"`{name}`", harmless or "only null", guard.hint or ""


def _pair_rows() -> Iterator[tuple[str, str, str]]:
    """What one field cannot stand beside, and why."""
    partners: dict[tuple[str, str], list[str]] = {}
    for pair in PAIRS:
        partners.setdefault((pair.fields[0], pair.why), []).append(pair.fields[1])
    for (name, why), others in partners.items():
        yield f"`{name}`", ", ".join(f"`{other}`" for other in others), why


def limits_page() -> str:
    """Every limit with its default."""
    rows = [
        (
            f"`{row.name}`",
            MODELS_OWN if row.name == "model_tokens" else value_of(row),
            "" if row.status is None else " ".join([str(row.status), f"`{row.code}`" if row.code else ""]).strip(),
            f"`{row.checked}`",
            f"`{row.flag}`" if row.flag else "",
            row.note,
        )
        for row in table()
    ]
    head = ("limit", "default", "over it", "checked by", "changed by", "note")
    return f"# Limits\n{GENERATED}\n{LIMITS}\n" + _table(head, rows)


def layout_page() -> str:
    """The first paragraph of every module's docstring, by folder."""
    parts = [
        "# Layout",
        GENERATED,
        "What each file knows, and what it must not know. `tests/test_house.py` holds the lines.\n",
    ]
    folder = None
    for path in sorted((ROOT / "quire").rglob("*.py"), key=lambda path: (path.parent.as_posix(), path.name)):
        if path.parent != folder:
            folder = path.parent
            parts.append(f"\n## {folder.relative_to(ROOT).as_posix()}/\n")
        parts.append(f"- **{path.name}** {_about(path)}")
    return "\n".join(parts) + "\n"


def _about(path: Path) -> str:
    """The opening paragraph, and the one that says what is known and not, as one line."""
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraphs = [" ".join(each.split()) for each in doc.split("\n\n")]
    kept = [each for number, each in enumerate(paragraphs) if number == 0 or ("now" in each and "Knows" in each)]
    return " ".join(kept)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines) + "\n"


def _default(value: object) -> str:
    nothing = value is None or (isinstance(value, (tuple, list, str)) and not value)
    return "" if nothing else f"`{value}`" if not isinstance(value, bool) else f"`{'on' if value else 'off'}`"


def _json(value: object) -> str:
    return "" if value is None else f"`{json.dumps(value)}`"


def _deed(handle: Any) -> str:
    """The handler's sentence after its `GET /path:`."""
    return re.sub(r"^[A-Z]+ [^\s:;,]+[:;,.]? ?", "", _first_line(handle)).strip()


def _first_line(thing: Any) -> str:
    return (thing.__doc__ or "").strip().splitlines()[0]


def pages() -> dict[str, str]:
    """Path under docs/ -> text."""
    return {
        "reference/options.md": options_page(),
        "reference/metrics.md": metrics_page(),
        "reference/api.md": api_page(),
        "reference/limits.md": limits_page(),
        "layout.md": layout_page(),
    }


def main() -> int:
    """Write every page whose text has changed."""
    for name, text in pages().items():
        path = ROOT / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote docs/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
