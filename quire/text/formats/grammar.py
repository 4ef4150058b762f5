"""What a model may write, as a grammar for llguidance (Lark): from the same description that its answers are read by.

    required    reasoning?  calls                        nothing but calls, and reasoning before them
    auto        text (call text)*                        free text; a call that is begun is one of a tool's
    budget      at most so many tokens of reasoning      then its end is the only token left
    content     reasoning?  (calls | content)            what is neither reasoning nor a call is of another grammar

Knows: descriptions and tools' schemas. Does not know: how grammars are compiled, sampling, requests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from quire.errors import RequestError
from quire.text.formats import lark
from quire.text.formats.dialect import Calls, Channels, Format, Keywords, Maybe, Parameter, Part, chunks
from quire.text.formats.lark import NOTHING, Rules
from quire.text.formats.literals import as_json, types_of

EBNF = "%ebnf"  # how text in that notation begins, which has no place inside another grammar
NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call. parameters: the JSON schema of its arguments, None for none."""

    name: str
    parameters: Mapping[str, Any] | None = None
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of an answer. budget: most tokens of reasoning. is_many: more calls than one may come.

    content: the grammar that content must be of, as llguidance takes it: Lark, or JSON with "grammars".
    """

    tools: Sequence[Tool] = ()
    choice: Literal["auto", "required"] = "auto"
    is_many: bool = True
    budget: int | None = None
    content: str | None = None

    @property
    def constrains(self) -> bool:
        """Whether anything is asked that an unconstrained answer might not do."""
        held = self.budget is not None or self.content is not None
        return held or self.choice == "required" or any(tool.strict for tool in self.tools)

    @property
    def free(self) -> str:
        """The right side for content."""
        return "ANY" if self.content is None else "@content"


def constraint(
    form: Format, asked: Asked, special: Mapping[str, int], *, close: int | None = None, in_thought: bool = False
) -> str | None:
    """The grammar of an answer; None where nothing is asked.

    special: the format's marks that are one special token each, to their ids (`Format.tokens` are the candidates).
    close: the token that ends reasoning, if it is one token of any kind. in_thought: the prompt has opened the
    reasoning.
    """
    if not asked.constrains:
        return None
    rules = Rules(special)
    if form.channels is not None:
        start = _messages(rules, form.channels, asked, close)
    else:
        answer = _calls_or_text(rules, form, asked, in_thought)
        start = f"{_reasoning(rules, form, asked, close, in_thought)} {answer}"
    whole = rules.whole(start)
    return whole if asked.content is None else _together(whole, asked.content)


def _together(whole: str, content: str) -> str:
    """Both grammars in llguidance's JSON, in which the first refers to the other by name."""
    if content.startswith(EBNF):
        raise RequestError(
            "an EBNF grammar cannot stand beside tools or reasoning",
            hint="Write it in Lark.",
            param="structured_outputs",
        )
    parts = json.loads(content)["grammars"] if content.startswith("{") else [{"lark_grammar": content}]
    return json.dumps({"grammars": [{"lark_grammar": whole}, {**parts[0], "name": "content"}, *parts[1:]]})


def _reasoning(rules: Rules, form: Format, asked: Asked, close: int | None, in_thought: bool) -> str:
    """Reasoning and the white space after it. Where text is free and unlimited, it is part of the text."""
    mark = form.reasoning
    if mark is None:
        return NOTHING
    inside = rules.up_to(mark.closes)
    if asked.budget is not None and close is not None:
        inside = f"{_at_most(asked.budget, close)} <[{close}]>"
    thought = rules.add(f"{inside} {_SPACE}")
    return thought if in_thought else f"({_SPACE} {rules.text(mark.opens)} {thought})?"


def _at_most(budget: int, close: int) -> str:
    return f"<[^{close}]>{{0,{budget}}}" if budget else NOTHING


def _plain(rules: Rules, form: Format, asked: Asked, in_thought: bool) -> str:
    """Free text. Under a budget it may not begin with the mark that opens reasoning."""
    mark = form.reasoning
    if asked.content is not None or asked.budget is None or mark is None or in_thought or rules.is_special(mark.opens):
        return asked.free
    return rules.add(f"/([^\\{mark.opens[0]}\\s](.|\\n)*)?/")


_SPACE = r"/[ \t\n]{0,4}/"


def _calls_or_text(rules: Rules, form: Format, asked: Asked, in_thought: bool) -> str:
    calls = form.calls
    if calls is None or not asked.tools:
        return _plain(rules, form, asked, in_thought)
    call = rules.add(" | ".join(_call(rules, calls, tool) for tool in asked.tools))
    many = asked.is_many and not calls.one
    again = f"({rules.text(calls.between)} {call})*" if many else NOTHING
    begin = "" if calls.bare else calls.begin
    if asked.choice == "required" or asked.content is not None:
        whole = f"{rules.text(begin + calls.open)} {call} {again} {rules.text(calls.shut + calls.end)}"
        return whole if asked.choice == "required" else rules.add(f"{whole} | {asked.free}")
    if calls.bare:
        first = (calls.open or "{")[0]
        whole = f"{rules.text(calls.open)} {call} {again} {rules.text(calls.shut)}"
        return rules.add(f"{whole} | /([^\\{first}](.|\\n)*)?/")
    return _free(rules, calls, asked, again)


def _free(rules: Rules, calls: Calls, asked: Asked, again: str) -> str:
    """Text with calls in it: what follows the first mark is held."""
    lead = chunks(calls.begin + calls.open + _lead(calls))[0]
    mark = next((mark for mark in sorted(calls.marks, key=len, reverse=True) if lead.startswith(mark)), lead)
    call = rules.add(" | ".join(_call(rules, calls, tool, without=mark) for tool in asked.tools))
    shut = rules.text(calls.shut + calls.end)
    section = rules.add(f"{rules.up_to(mark)} {call} {again} {shut}")
    return f"{section}{'*' if asked.is_many else '?'} ANY"


def _lead(calls: Calls) -> str:
    """The text at the start of a call, up to its first part that varies."""
    text = ""
    for part in calls.call:
        flat = part.parts if isinstance(part, Maybe) else (part,)
        for each in flat:
            if isinstance(each, Part):
                return text
            text += each
    return text


def _call(rules: Rules, calls: Calls, tool: Tool, without: str | None = None) -> str:
    """One call of a tool. `without`: the mark that has been written; the section's beginning after it is included."""
    lead = _lead(calls)
    parts = _parts(rules, calls, tool)
    if without is None:
        return " ".join([rules.text(lead), *parts])
    return " ".join([rules.text((calls.begin + calls.open + lead).removeprefix(without)), *parts])


def _parts(rules: Rules, calls: Calls, tool: Tool) -> list[str]:
    """What comes after a call's lead."""
    texts: list[str] = []
    is_lead = True
    for part in calls.call:
        inner = part.parts if isinstance(part, Maybe) else (part,)
        if is_lead and all(isinstance(each, str) for each in inner):
            continue
        is_lead = False
        made = " ".join(
            rules.text(each) if isinstance(each, str) else _part(rules, calls, each, tool) for each in inner
        )
        texts.append(f"({made})?" if isinstance(part, Maybe) and Part.ID in inner else made)
    return texts


def _part(rules: Rules, calls: Calls, part: Part, tool: Tool) -> str:
    parameters = NO_ARGUMENTS if tool.parameters is None else tool.parameters
    if part is Part.NAME:
        return lark.quoted(tool.name)
    if part is Part.NUMBER:
        return "/[0-9]{1,4}/"
    if part is Part.ID:
        return "/[A-Za-z0-9]{9}/"
    if part is Part.PARAMETERS and calls.parameter is not None:
        return _parameters(rules, calls.parameter, parameters)
    if part is Part.KEYWORDS and calls.keywords is not None:
        return _keywords(rules, calls.keywords, parameters)
    arguments = rules.add(lark.schema(parameters))
    if part is Part.JSON:
        return arguments
    head = f'{{"{calls.keys[0]}": {as_json(tool.name)}, "{calls.keys[1]}": '
    return f'{lark.quoted(head)} {arguments} "}}"'


def _parameters(rules: Rules, form: Parameter, schema: Any) -> str:
    items = []
    for key, value, required in lark.properties(schema):
        head = rules.text(f"{form.before}{key}{form.middle}{form.pad}")
        items.append(rules.add(f"{head} {_value(rules, form, value)}") + ("" if required else "?"))
    return " ".join(items) or NOTHING


def _value(rules: Rules, form: Parameter, schema: Any) -> str:
    """A parameter's value and the mark after it: text where it may be a string, JSON where it is something else."""
    end, *rest = chunks(form.after)
    after = rules.text("".join(rest))
    options = schema.get("enum") if isinstance(schema, Mapping) else None
    if isinstance(options, list) and options:
        ways = [lark.quoted(each if isinstance(each, str) else as_json(each)) for each in options]
        return f"({' | '.join(ways)}) {rules.text(form.pad + end)} {after}"
    types = types_of(schema)
    if types and "string" not in types:
        return f"{rules.add(lark.schema(schema))} {rules.text(form.pad + end)} {after}"
    return f"{rules.up_to(form.pad + end)} {after}"


def _keywords(rules: Rules, form: Keywords, schema: Any) -> str:
    items = [
        (rules.add(f"{lark.quoted(key + form.assign)} {lark.literal(rules, value, form)}"), required)
        for key, value, required in lark.properties(schema)
    ]
    comma = lark.quoted(", " if form.escapes else ",")
    return f"{lark.quoted(form.open)} {lark.sequence(items, comma)} {lark.quoted(form.close)}"


def _messages(rules: Rules, form: Channels, asked: Asked, close: int | None) -> str:
    """Channels: reasoning in messages of its own, then a call or content; the end of the last is left to the model."""
    text = rules.text
    end = form.ends[0]
    body = "ANY"
    if asked.budget is not None and close is not None:
        body = _at_most(asked.budget, close)
    thought = rules.add(
        f"{text(form.channel + form.thought + form.message)} {body} {text(end + form.start + 'assistant')}"
    )
    calls = [
        f"{text(f'{form.channel}{form.call} to={form.prefix}{tool.name} ' + form.constrain + 'json' + form.message)} "
        + rules.add(lark.schema(NO_ARGUMENTS if tool.parameters is None else tool.parameters))
        for tool in asked.tools
    ]
    if asked.choice == "required":
        return f"{thought}* ({' | '.join(calls)})"
    final = f"{text(form.channel + form.content[0] + form.message)} {asked.free}"
    if asked.content is not None:
        return f"{thought}* ({' | '.join([*calls, final])})"
    said = f"{text(form.channel + form.content[-1] + form.message)} ANY"
    preamble = rules.add(f"{said} {text(end + form.start + 'assistant')}")
    return f"({thought} | {preamble})* ({' | '.join([*calls, final, said])})"
