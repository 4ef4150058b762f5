"""Payloads of advisories: forms of answers, tools and templates.

Knows: requests, as steps of bytes. Does not know: what is right, who sends them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from chaos.bodies import SCHEMA, TOOL
from chaos.http_text import (
    Raw,
    post,
)
from chaos.mutate import deep
from chaos.payload import MESSAGES, Steps, chat, complete


def regexes() -> Iterable[Steps]:
    patterns = (
        "(a+)+b",
        "(a*)*$",
        "(a|a)*b",
        "((a{1,1000}){1,1000}){1,1000}",
        "a{1000000}",
        "[",
        "(?=a)b",
        "\\1",
        "(?R)",
        "*",
        "",
        "(" * 5000 + ")" * 5000,
        ".{0,100000}",
        "(x|" * 300 + "y" + ")" * 300,
        "[\\u0000-\\U0010ffff]{5000}",
    )
    return [complete(guided_regex=pattern) for pattern in patterns] + [chat(structured_outputs={"regex": "(a+)+b"})]


def nul_regexes() -> Iterable[Steps]:
    return [complete(guided_regex=pattern) for pattern in ("\x00", "\x00a", "a\x00b", "\x01", "\ufffe")]


def grammars() -> Iterable[Steps]:
    texts = (
        "root ::= " + "(" * 60000 + '"a"' + ")" * 60000,
        "\n".join(f"r{number} ::= r{number + 1}" for number in range(5000)),
        'root ::= root "a" | root',
        "root ::= missing",
        "not a grammar {{{",
        "",
    )
    return [complete(guided_grammar=text) for text in texts]


def endless_grammars() -> Iterable[Steps]:
    texts = (
        'root ::= "a" root',
        'root ::= "a"* "b"*',
        'root ::= ""',
        'root ::= ("a" | "b" | root){0,3}',
        "start: /a+/",
    )
    return [complete(guided_grammar=text) for text in texts]


def bad_schemas() -> Iterable[Steps]:
    schemas: tuple[object, ...] = (
        {"type": "nothing"},
        {"type": 5},
        [],
        "text",
        {"properties": []},
        {"type": "object", "properties": {"a": 1}},
        {"$ref": "#/nowhere"},
        {"$ref": "http://127.0.0.1:1/schema"},
        {"enum": []},
        {"pattern": "("},
        {"allOf": {}},
        {"anyOf": []},
        {"type": "string", "minLength": 5, "maxLength": 1},
        {"type": "string", "format": "nothing"},
        {"not": {}},
        {"const": Raw("NaN")},
        {"required": "a"},
        {"items": 7},
    )
    found: list[Steps] = [complete(guided_json=schema) for schema in schemas]
    formats: tuple[object, ...] = (
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"schema": 1}},
        {"type": "x"},
        5,
        [],
    )
    return [*found, *[chat(response_format=form) for form in formats]]


def deep_schemas() -> Iterable[Steps]:
    nested: object = {"type": "string"}
    for _ in range(25):
        nested = {"type": "object", "properties": {"a": nested}, "required": ["a"]}
    circle = {"$defs": {"x": {"type": "object", "properties": {"x": {"$ref": "#/$defs/x"}}}}, "$ref": "#/$defs/x"}
    twins = {
        "$defs": {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(25)},
        "$ref": "#/$defs/d0",
    }
    return [complete(guided_json=each) for each in (nested, circle, twins, {"$ref": "#"}, deep(60, "object"))]


def wide_schemas() -> Iterable[Steps]:
    schemas: tuple[object, ...] = (
        {"type": "string", "maxLength": 10**9},
        {"type": "string", "minLength": 10**6},
        {"type": "array", "minItems": 10**6},
        {"type": "integer", "minimum": -(10**30), "maximum": 10**30},
        {"type": "number", "multipleOf": 1e-30},
        {"enum": [f"value {number}" for number in range(20_000)]},
        {"type": "string", "pattern": "^(a{1,500}){1,500}$"},
        {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(2000)}},
        {"allOf": [{"properties": {f"p{number}": {"type": "string"}}} for number in range(300)]},
    )
    return [complete(guided_json=schema) for schema in schemas]


def new_schemas() -> Iterable[Steps]:
    return [complete(guided_json={**SCHEMA, "title": f"never seen {number}"}) for number in range(6)]


def tools() -> Iterable[Steps]:
    function = TOOL["function"]
    broken: tuple[object, ...] = (
        {"type": "function"},
        {"type": "x", "function": function},
        {"function": {"name": "a" * 5000}},
        5,
        None,
        {
            "type": "function",
            "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": 5}}}},
        },
        {
            "type": "function",
            "function": {"name": "f", "parameters": {"properties": {"a": {"type": "string", "pattern": "(a+"}}}},
        },
        {"type": "function", "function": {"name": 'f\n"}{{', "parameters": {}}},
        {"type": "function", "function": {"name": ""}},
    )
    found: list[Steps] = [chat(tools=[tool]) for tool in broken]
    found += [chat(tools=[tool], tool_choice="required") for tool in broken[5:8]]
    return [
        *found,
        chat(tools=[TOOL] * 500),
        chat(tool_choice="required"),
        chat(tools=[TOOL], tool_choice={"type": "x"}),
    ]


def tool_texts() -> Iterable[Steps]:
    texts = (
        "<tool_call>" * 200,
        "<tool_call>{" * 150,
        "[f(a=" * 300,
        '{"name": ' * 200,
        "<think>" * 300,
        "<|python_tag|>" * 50,
    )
    turns = [[*MESSAGES, {"role": "assistant", "content": text}, *MESSAGES] for text in texts]
    return [chat(messages=turn, tools=[TOOL]) for turn in turns]


def choices() -> Iterable[Steps]:
    lists: tuple[object, ...] = (
        [],
        [""],
        ["a"] * 10_000,
        [f"choice number {number}" for number in range(20_000)],
        ["x" * 100_000],
        "yes",
        [1, 2],
    )
    return [complete(guided_choice=each) for each in lists]


def structural_tags() -> Iterator[Steps]:
    tags: tuple[object, ...] = (
        {"type": "structural_tag"},
        {"type": "structural_tag", "structures": [], "triggers": []},
        {"type": "structural_tag", "format": {}},
        {"type": "structural_tag", "structures": [{"begin": "", "schema": {}, "end": ""}], "triggers": [""]},
        {
            "type": "structural_tag",
            "structures": [{"begin": "<a>", "schema": SCHEMA, "end": "</a>"}] * 500,
            "triggers": ["<"],
        },
        {"type": "structural_tag", "format": {"type": "sequence", "elements": [{"type": "any_text"}] * 2000}},
    )
    for tag in tags:
        yield chat(response_format=tag)


def template_arguments() -> Iterable[Steps]:
    arguments: tuple[object, ...] = (
        {"tokenize": True},
        {"chat_template": "{{ 7*7 }}"},
        {"messages": []},
        {"tools": "x"},
        {"bos_token": "x" * 5000},
        [],
        {"add_generation_prompt": False},
        {"documents": [{}]},
        {"self": 1},
        {"__class__": 1},
        {"a": deep(60, "list")},
        {"loop": {}, "range": 5, "raise_exception": 1, "namespace": 1},
        {str(number): number for number in range(5000)},
    )
    asked = [chat(chat_template_kwargs=each) for each in arguments]
    return [*asked, post("/tokenize", {"messages": MESSAGES, "chat_template_kwargs": {"tokenize": True}})]


def templates() -> Iterable[Steps]:
    escape = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    texts = (
        "{{ 7*7 }}",
        escape,
        "{% for x in range(10**9) %}x{% endfor %}",
        "{% include '/etc/passwd' %}",
        "{{ cycler.__init__ }}",
    )
    found: list[Steps] = [chat(chat_template=text) for text in texts]
    return [
        *found,
        *[chat(messages=[{"role": "user", "content": text}]) for text in texts],
        chat(messages=[{"role": escape, "content": "x"}]),
    ]
