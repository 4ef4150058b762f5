"""Rule F: a client reads our own sentences, never the text of an exception that a library raised.

Knows: the sources of what a request passes through. Does not know: which errors reach whom.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.house_map import Source, sources

# Rooms and files whose errors a client may read.
ROOMS = {"server", "text", "structured", "llm", "tenancy", "words", "engine", "scheduling", "sampling", "runner"}
# Fields of foreign errors that are a number, or one of a fixed list of sentences.
HARMLESS = {
    "pos": "where JSON breaks off",
    "start": "where UTF-8 breaks off",
    "msg": "json's own few sentences",
    "strerror": "the system's sentence for an error number; of files that the operator named",
    "errno": "a number",
    "reason": "OpenSSL's name of a fault",
    "status_code": "a number",
    "headers": "the router's own",
    "lineno": "a number",
    "errors": "pydantic's own catalogue of sentences, without its context",
}
OURS = {"message", "what", "got", "allowed", "hint", "param", "code", "status", "kind", "cause", "retry_after_s",
        "estimate_s", "exit_code"}  # fmt: skip
# (file, function) -> why the text of a foreign error may go on there.
TO_OPERATOR = "said at the start, on the terminal, about a file that the operator named"
HANDED_ON = "the error itself goes on to whoever decides what may be told of it"
ALLOWED: dict[tuple[str, str], str] = {
    ("engine/engine.py", "_run"): HANDED_ON,
    ("engine/rescue.py", "_is_sane"): "to the engine's own log: whoever asked is told the step's error, which is ours",
    ("server/failures.py", "__call__"): HANDED_ON,
    ("server/stream.py", "_pump"): HANDED_ON,
    ("server/tls.py", "_context"): HANDED_ON,
    **{("engine/kept_weights.py", name): TO_OPERATOR for name in ("open", "put", "finish", "_begin")},
    ("tenancy/keys.py", "read_keys"): TO_OPERATOR,
    ("text/folder.py", "read_json"): TO_OPERATOR,
    ("text/tokenizer.py", "_load_backend"): TO_OPERATOR,
    ("typed_json.py", "parse_object"): TO_OPERATOR,
    ("engine/attention_choice.py", "_tried"): "said at the start, on the terminal: why a library was not taken",
    ("runner/graphs.py", "_record"): "to whoever measures: CUDA's words on why a step cannot be recorded",
    ("sampling/processors.py", "process"): "a caller's own code, in the caller's own process: the server takes none",
    ("structured/grammar.py", "_as_lark"): "the compiler's words on the text of whoever asked",
    ("structured/source.py", "_loaded"): "json's own few sentences, on the text of whoever asked",
}


def foreign_texts(source: Source) -> Iterator[tuple[str, int, str]]:
    """(function, line, expression) wherever a caught error's own text is used, and not only its harmless fields."""
    for function in source.nodes:
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for handler in ast.walk(function):
                if isinstance(handler, ast.ExceptHandler) and handler.name and not _is_ours(handler.type):
                    yield from ((function.name, *found) for found in _uses(handler))


def _is_ours(kind: ast.expr | None) -> bool:
    names = [kind] if not isinstance(kind, ast.Tuple) else kind.elts
    return all(name is not None and ast.unparse(name).rpartition(".")[2] in OUR_ERRORS for name in names)


OUR_ERRORS = {
    "QuireError", "RequestError", "StartError", "ServiceError", "InternalError", "Overloaded", "EngineDead",
    "InvalidSetting", "BrokenCheckpoint", "UnsupportedModel", "UnsupportedField", "UnusableFile", "Unauthorized",
    "GenerationFailed", "RaisedByTemplate", "NothingAllowed",
}  # fmt: skip


def _uses(handler: ast.ExceptHandler) -> Iterator[tuple[int, str]]:
    parents = {child: node for node in ast.walk(handler) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(handler):
        if isinstance(node, ast.Name) and node.id == handler.name and isinstance(node.ctx, ast.Load):
            parent = parents[node]
            if isinstance(parent, ast.Attribute) and parent.attr in HARMLESS | dict.fromkeys(OURS):
                continue
            if isinstance(parent, ast.Raise) or _is_logged(node, parents):
                continue
            yield node.lineno, ast.unparse(parent)


PASSED_TO = ("isinstance", "type", "failures.as_ours", "as_ours")  # the last is what decides what may be shown


def _is_logged(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> bool:
    """`raise ... from error` and `exc_info=error` show the error to the operator alone; so does naming its type."""
    parent = parents[node]
    if isinstance(parent, ast.keyword) and parent.arg == "exc_info":
        return True
    return isinstance(parent, ast.Call) and ast.unparse(parent.func) in PASSED_TO


def test_no_text_of_a_foreign_error_goes_on() -> None:
    found = [(source.name, *each) for source in sources() if source.room in ROOMS for each in foreign_texts(source)]
    wrong = [f"{name}:{line}: {what}" for name, function, line, what in found if (name, function) not in ALLOWED]
    assert not wrong, "\n" + "\n".join(wrong)
    idle = [key for key in ALLOWED if key not in {(name, function) for name, function, _, _ in found}]
    assert not idle


@pytest.mark.parametrize(
    ("line", "is_wrong"),
    [
        ("raise RequestError(str(error))", True),
        ("raise RequestError(f'no: {error}')", True),
        ("raise RequestError('no', got=error.args)", True),
        ("raise RequestError('no', got=repr(error))", True),
        ("raise RequestError('no') from error", False),
        ("raise RequestError('no', got=error.pos)", False),
        ("log.error('no', exc_info=error)", False),
        ("name = type(error).__name__", False),
    ],
)
def test_the_check_can_tell(line: str, is_wrong: bool) -> None:
    text = f"def f():\n    try:\n        g()\n    except ValueError as error:\n        {line}\n"
    tree = ast.parse(text)
    source = Source(sources()[0].path, "server/x.py", text, tree, tuple(ast.walk(tree)))
    assert bool(list(foreign_texts(source))) == is_wrong
