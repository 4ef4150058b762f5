"""Rule B: no input is checked by a statement that `python -O` takes away. Knows: the sources as syntax trees."""

from __future__ import annotations

import ast
import re

from tests.house_map import sources

FOREIGN = {"kernels/vendor/flashinfer.py": "caught where a library that is not ours refuses by its own asserts"}


def narrows(test: ast.expr) -> bool:
    """`x is not None`, `isinstance(x, X)`: what tells a type checker what our own code has made sure of before."""
    text = ast.unparse(test)
    return bool(re.fullmatch(r"[\w.]+ is not None", text) or re.fullmatch(r"isinstance\([\w.]+, [\w.]+\)", text))


def test_asserts_only_narrow_types_and_touch_no_request() -> None:
    """What a request or a file says is refused by an error of ours; an assert is a note to the type checker."""
    wrong = []
    for source in sources():
        for node in source.nodes:
            if isinstance(node, ast.Assert) and not narrows(node.test):
                wrong.append(f"{source.name}:{node.lineno}: assert {ast.unparse(node.test)}")
    assert not wrong, "\n" + "\n".join(wrong)


def test_nothing_depends_on_whether_asserts_run() -> None:
    wrong = []
    for source in sources():
        for node in source.nodes:
            if isinstance(node, ast.Name) and node.id in ("__debug__", "AssertionError") and source.name not in FOREIGN:
                wrong.append(f"{source.name}:{node.lineno}: {node.id}")
    assert not wrong, "\n" + "\n".join(wrong)


def test_the_narrowing_is_told_from_a_check() -> None:
    for text in ("x is not None", "self.a.b is not None", "isinstance(x, int)", "isinstance(self.a, m.B)"):
        assert narrows(ast.parse(text, mode="eval").body)
    for text in ("x", "x > 0", "x is None", "f(x) is not None", "isinstance(x, int) and x > 0", "len(x) == 2"):
        assert not narrows(ast.parse(text, mode="eval").body)
