"""Regular expressions run in linear time on what others write: every one is listed with who writes its text and why.

`re` goes back and forth; what keeps a pattern linear is that no two ways lead through the same characters, or that the
text is short. Requests' own patterns never reach `re`: the grammar compiler's automata take them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import pytest
from house_map import Source, sources

FUNCTIONS = {"compile", "match", "search", "fullmatch", "sub", "subn", "split", "findall", "finditer"}
FIXED = "a fixed number of characters at each place"
SHORT = "bounded: it looks at so many characters and no more"
ONE_RUN = "one repeat over characters that cannot begin what follows"
LITERALS = "alternatives of literal marks: characters times the marks' length, which the dialect fixes"
OURS = "our own text, or the operator's"

PATTERNS = {
    # Requests.
    "server/record.py:_ID": SHORT,
    "server/terms.py:_MILLISECONDS": SHORT,
    "server/json_body.py:_SURROGATE": FIXED,
    "server/json_body.py:_HUGE": FIXED,
    "server/calling.py:NAME": SHORT,
    "structured/schema.py:place_of": "our compiler's message, cut; a quotation mark ends every run",
    "structured/grammar.py:refused": ONE_RUN,
    "text/sandbox.py:_WIDE_FORMAT": "a run ends before the next % or brace, and goes back at most six digits",
    # What a model wrote.
    "text/formats/literals.py:_NUMBER": ONE_RUN,
    "text/formats/literals.py:_WORD": ONE_RUN,
    "text/formats/literals.py:_LONG_ESCAPE": FIXED,
    "text/formats/dialect.py:_CHUNK": ONE_RUN,
    "text/formats/json_text.py:_PLAIN": ONE_RUN,
    "text/formats/json_text.py:_ATOM": SHORT,
    "text/formats/json_text.py:_ATOMS": "an atom, which _ATOM has bounded",
    "text/formats/json_text.py:_BLANK": ONE_RUN,
    "text/formats/json_text.py:_HEX": FIXED,
    "text/formats/source.py:_SPACE": ONE_RUN,
    "text/formats/channels.py:_RECIPIENT": "a header, of at most 256 characters",
    "text/formats/calls.py:NAME": SHORT,
    "text/formats/calls.py:NUMBER": SHORT,
    "text/formats/calls.py:IDENTITY": SHORT,
    "text/formats/calls.py:_KEY": SHORT,
    "text/formats/marks.py:_pattern": LITERALS,
    "text/formats/lark.py:_split": LITERALS,
    "text/formats/lark.py:_pattern": FIXED,
    "text/decoders.py:BYTE_PIECE": FIXED,
    "observe/log.py:_PLAIN": ONE_RUN,
    # Files of the operator, and our own.
    "tenancy/keys.py:NAME": SHORT,
    "tenancy/keys.py:_HASH": SHORT,
    "weights/checkpoint.py:IGNORED": OURS,
    "cli/resolve.py:HUB_ID": OURS,
    "cli/bench/lean_client.py:TEXT": OURS,
    "cli/bench/lean_client.py:USAGE": OURS,
    "cli/bench/lean_client.py:LENGTH": OURS,
    "cli/bench/overload_load.py:_buckets": OURS,
    "cli/bench/overload_load.py:resident_bytes": OURS,
    "measure/variants.py:SPELLING": OURS,
    "measure/variants.py:WEIGHTS": OURS,
}


def found() -> Iterator[tuple[str, ast.Call]]:
    for source in sources():
        yield from ((f"{source.name}:{name}", call) for name, call in _calls(source))


def _calls(source: Source) -> Iterator[tuple[str, ast.Call]]:
    parents = {child: node for node in source.nodes for child in ast.iter_child_nodes(node)}
    for node in source.nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in FUNCTIONS:
            module = node.func.value
            if isinstance(module, ast.Name) and module.id == "re":
                yield _name(node, parents), node


def _name(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> str:
    """The constant that it becomes, or the function that it stands in."""
    at = node
    while at in parents:
        at = parents[at]
        if isinstance(at, ast.Assign):
            target = at.targets[0]
            if isinstance(target, (ast.Name, ast.Attribute)):
                name = target.id if isinstance(target, ast.Name) else target.attr
                if name.lstrip("_").isupper() or isinstance(target, ast.Attribute):
                    return name
        if isinstance(at, ast.AnnAssign) and isinstance(at.target, ast.Name) and at.target.id.lstrip("_").isupper():
            return at.target.id
        if isinstance(at, ast.FunctionDef):
            return at.name
    return "?"


def test_every_pattern_is_listed_with_its_reason() -> None:
    names = {name for name, _ in found()}
    assert not names - PATTERNS.keys(), "say here who writes the text that it runs on, and why that takes linear time"
    assert not PATTERNS.keys() - names, "listed, but gone"


@pytest.mark.parametrize(("name", "call"), list(found()), ids=lambda each: each if isinstance(each, str) else "")
def test_no_repeat_without_bound_stands_in_another(name: str, call: ast.Call) -> None:
    """(a+)+ takes twice as long with each character."""
    first = call.args[0]
    if isinstance(first, ast.Constant):
        assert not _is_nested(parser.parse(first.value))


def test_the_look_at_patterns_sees_what_it_should() -> None:
    assert _is_nested(parser.parse(r"(a+)+"))
    assert _is_nested(parser.parse(r"((ab|c*)d)*x"))
    assert not _is_nested(parser.parse(r"a+(b?c)*[de]{2,9}"))


def _is_nested(pattern: Any, inside: bool = False) -> bool:
    for code, value in pattern:
        if code in (codes.MAX_REPEAT, codes.MIN_REPEAT):
            endless = value[1] == codes.MAXREPEAT
            if (endless and inside) or _is_nested(value[2], inside or endless):
                return True
        elif code == codes.SUBPATTERN:
            if _is_nested(value[-1], inside):
                return True
        elif code == codes.BRANCH and any(_is_nested(each, inside) for each in value[1]):
            return True
    return False


def test_no_room_but_these_uses_re_under_another_name() -> None:
    for source in sources():
        for node in source.nodes:
            if isinstance(node, ast.ImportFrom) and node.module == "re":
                pytest.fail(f"{source.name}:{node.lineno}: import re itself")
            if isinstance(node, ast.Import):
                assert not any(
                    each.name in ("regex", "re2") or (each.name == "re" and each.asname) for each in node.names
                )
