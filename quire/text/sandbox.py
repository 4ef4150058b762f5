"""The Jinja2 environment in which chat templates run, and what keeps it bounded.

A template comes with a model's weights: trusted to be meant well, not to be right. Jinja's immutable sandbox keeps it
from Python; a budget keeps it from running for ever. Every loop round, macro call and range item costs one step, and
strings may not grow past a limit; both are counted, not timed, so that the same template ends the same way everywhere.
This is no defence in depth against a template written to exhaust memory through filters: use models you trust.

Knows: Jinja2. Does not know: messages, files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.visitor
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from quire.limits import MAX_TEMPLATE_CHARACTERS, MAX_TEMPLATE_STEPS

MAX_ARGUMENT = 100_000
_WIDE_FORMAT = re.compile(r"%[^a-zA-Z%]*(?:\*|\d{6,})|\{[^{}]*\d{6,}")


class RaisedByTemplate(jinja2.TemplateError):
    """The template called `raise_exception`: its message is meant for the caller."""


class Budget:
    """Steps and characters left to one rendering."""

    def __init__(self) -> None:
        self.num_steps_left = self.num_chars_left = 0
        self.restart()

    def restart(self, num_steps: int = MAX_TEMPLATE_STEPS) -> None:
        """A fresh budget for the next rendering."""
        self.num_steps_left, self.num_chars_left = num_steps, MAX_TEMPLATE_CHARACTERS

    def step(self, num_steps: int = 1) -> None:
        """Pays for loop rounds."""
        self.num_steps_left -= num_steps
        if self.num_steps_left < 0:
            raise SecurityError(f"the template takes more than {MAX_TEMPLATE_STEPS} steps")

    def output(self, num_chars: int) -> None:
        """Pays for characters of the result."""
        self.num_chars_left -= num_chars
        if self.num_chars_left < 0:
            raise SecurityError(f"the template writes more than {MAX_TEMPLATE_CHARACTERS} characters")

    def size(self, num_items: int) -> None:
        """Refuses a single value that is larger than any result may be; its making also costs steps."""
        if num_items > MAX_TEMPLATE_CHARACTERS:
            raise SecurityError(f"the template builds a value larger than {MAX_TEMPLATE_CHARACTERS}")
        self.step(num_items // 256)


class ChatExtension(jinja2.ext.Extension):
    """The `generation` tag (it marks the assistant's words for training; a plain block here) and the budget's hooks."""

    tags = {"generation"}  # noqa: RUF012 - declared so by Jinja2

    def parse(self, parser: Parser) -> nodes.Node:
        """`{% generation %} ... {% endgeneration %}` has its own scope, like a call block."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("written"), [], [], body).set_lineno(line)

    def written(self, caller: Macro) -> str:
        """The block's text, unchanged."""
        return caller()

    @property
    def step(self) -> None:
        """One loop round or macro call; a property, since a call from a sandboxed template costs tenfold."""
        self._sandbox.budget.step()

    def concat(self, *parts: Any) -> str:
        """The `~` operator, with its result's size checked."""
        text = "".join(str(part) for part in parts)
        self._sandbox.budget.size(len(text))
        return text

    @property
    def _sandbox(self) -> ChatEnvironment:
        assert isinstance(self.environment, ChatEnvironment)
        return self.environment


class ChatNamespace(Namespace):
    """`namespace()` without names that begin with an underscore, which lead into Python's internals."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        values = dict(*rest, **kwargs)
        for name in values:
            refuse_private(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        refuse_private(name)
        super().__setitem__(name, value)


class ChatDict:
    """`dict(...)` and `dict.fromkeys(...)` without the class itself, whose attributes lead further."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, keys: Any, value: Any = None) -> dict[Any, Any]:
        """A dict of these keys, each with `value`."""
        return dict.fromkeys(keys, value)


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """Renders as transformers' chat templates expect: trimmed blocks, loop controls, `tojson` that escapes nothing."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.budget = Budget()
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[ChatExtension, "jinja2.ext.loopcontrols"])
        self.filters["tojson"] = to_json
        for name in ("center", "indent", "wordwrap", "batch", "slice", "format"):
            self.filters[name] = refuse_large(self.filters[name])
        self.globals.pop("lipsum", None)
        self.globals |= {
            "raise_exception": raise_exception,
            "strftime_now": lambda format: now().strftime(format),
            "namespace": ChatNamespace,
            "dict": ChatDict(),
            "range": self._range,
        }

    def compile_chat(self, source: str) -> jinja2.Template:
        """The template with its budget hooks in place."""
        tree = self.parse(source)
        extension = self.extensions[ChatExtension.identifier]
        step = extension.attr("step")
        for node in list(tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock))):
            node.body.insert(0, nodes.ExprStmt(step, lineno=node.lineno))  # type: ignore[attr-defined]
        tree = _Hooked(extension).visit(tree)
        return self.from_string(tree.set_environment(self))

    def reads(self, source: str) -> frozenset[str]:
        """Names that a template looks up outside itself."""
        return frozenset(jinja2.meta.find_undeclared_variables(self.parse(source)))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Arithmetic that can make something huge out of something small is sized before or after."""
        if operator == "*":
            self.budget.size(max(_length(left) * _whole(right), _length(right) * _whole(left)))
        elif operator == "**" and (abs(_whole(left)) > MAX_ARGUMENT or abs(_whole(right)) > 64):
            raise SecurityError("the template computes too large a power")
        elif operator == "%" and isinstance(left, str):
            refuse_wide_format(left)
        result = super().call_binop(context, operator, left, right)
        self.budget.size(_length(result))
        return result

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Calls of methods and macros, with numbers and formats that would make huge strings refused."""
        method = getattr(obj, "__wrapped__", obj)  # the sandbox wraps str.format
        owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
        if isinstance(owner, str):
            self._check_string_call(owner, name, args, kwargs)
        result = super().call(context, obj, *args, **kwargs)
        if isinstance(result, str):
            self.budget.size(len(result))
        return result

    def _check_string_call(self, owner: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        _check_arguments((*args, *kwargs.values()))
        if name in ("format", "format_map"):
            refuse_wide_format(owner)
        if name == "replace" and len(args) >= 2 and isinstance(args[0], str) and isinstance(args[1], str):
            self.budget.size(len(owner) + owner.count(args[0]) * len(args[1]))

    def _range(self, *args: int) -> range:
        items = range(*args)
        self.budget.step(len(items))
        return items


class _Hooked(jinja2.visitor.NodeTransformer):
    """Replaces every `~` by a call that checks the size of what it makes."""

    def __init__(self, extension: jinja2.ext.Extension) -> None:
        self.extension = extension

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 - named after the node
        """`a ~ b ~ c` as one call."""
        self.generic_visit(node)
        call = self.extension.call_method("concat", list(node.nodes), lineno=node.lineno)
        return call


def raise_exception(message: Any) -> str:
    """What templates call to refuse a conversation."""
    raise RaisedByTemplate(str(message))


def to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Python's JSON; Jinja's own filter would escape characters of HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def refuse_private(name: Any) -> None:
    """SecurityError for a name that begins with an underscore."""
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"namespace attribute {name!r} begins with an underscore")


def refuse_large(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same filter, refusing widths and counts that would make a huge result of a small input."""
    num_passed = 1 if getattr(function, "jinja_pass_arg", None) is not None else 0

    def bounded(*args: Any, **kwargs: Any) -> Any:
        _check_arguments((*args[num_passed:], *kwargs.values()))
        if function.__name__ == "do_format":
            refuse_wide_format(str(args[0]))
        return function(*args, **kwargs)

    for name in ("jinja_pass_arg", "__name__"):
        if hasattr(function, name):
            setattr(bounded, name, getattr(function, name))
    return bounded


def refuse_wide_format(text: str) -> None:
    """SecurityError for a format string whose widths reach a hundred thousand."""
    if _WIDE_FORMAT.search(text):
        raise SecurityError("the template formats too wide a field")


def _check_arguments(values: tuple[Any, ...]) -> None:
    if any(_whole(value) > MAX_ARGUMENT for value in values):
        raise SecurityError("the template passes too large a number")


def _length(value: Any) -> int:
    """Size in characters; an item of a list weighs as sixteen."""
    if isinstance(value, list | tuple):
        return 16 * len(value)
    return len(value) if isinstance(value, str | bytes) else 0


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else 0
