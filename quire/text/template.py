"""Chat messages to the text a model was trained on, by the template in its folder.

Templates come from the model folder or from the operator, never from a request. The text of `render` holds its own
BOS: encode it with `add_special_tokens=False`.

Knows: template files, what they are called with. Does not know: ids, HTTP, what the answer is for.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2

from quire.errors import BrokenCheckpoint, InvalidSetting, RequestError
from quire.limits import MAX_TEMPLATE_STEPS
from quire.text.folder import read_json, read_special_tokens, read_text
from quire.text.messages import Message, fit_content, plain, prepare
from quire.text.sandbox import ChatEnvironment, RaisedByTemplate

RESERVED = frozenset({"messages", "tools", "documents", "add_generation_prompt"})
ROLES = ("system", "developer", "user", "assistant", "tool")
_PROBE = "Probe of content"
_PROBE_STEPS = 10_000


class ChatTemplate:
    """A model's chat templates, compiled once; `default` for talk, `tool_use` where a model has one of its own.

    digest: SHA-256 (hex) of the template text ("" when there is none); of all names and texts when there are several.
    variables: names that the templates read and do not set, `chat_template_kwargs` among them.
    takes_parts, takes_text: roles whose content the template reads as a list of parts, and as a string. They are
    found by rendering a short conversation both ways, once: content is passed as parts only where that reads the same.
    """

    def __init__(self, sources: Mapping[str, str], named: Mapping[str, str], now: Callable[[], datetime]) -> None:
        """sources: template texts by name. named: `bos_token`, ... to texts. now: clock of `strftime_now`."""
        self._named = dict(named)
        self._environment = ChatEnvironment(now)
        self._lock = threading.Lock()
        self._templates = {name: self._compile(name, source) for name, source in sources.items()}
        self.digest = _digest(sources)
        self.variables = frozenset().union(*(self._environment.reads(source) for source in sources.values()))
        self.takes_parts = frozenset(role for role in ROLES if self._reads(role, as_parts=True))
        self.takes_text = frozenset(role for role in ROLES if self._reads(role, as_parts=False))

    @classmethod
    def from_folder(
        cls, path: str | Path, override: str | Path | None = None, *, now: Callable[[], datetime]
    ) -> ChatTemplate:
        """Templates of a model folder, or the operator's `override` file in their place.

        InvalidSetting for an override that is not there, BrokenCheckpoint for a template that does not compile.
        """
        folder = Path(path)
        sources = read_sources(folder) if override is None else {"default": _read_override(Path(override))}
        return cls(sources, read_special_tokens(folder).named, now)

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt text, with the template's own special tokens in it.

        tools, documents: None when there are none (a template may tell None from an empty list). kwargs: further
        variables (`chat_template_kwargs`); they may replace `bos_token` and its like, not the arguments above.
        RequestError when there is no template, when it refuses the conversation or fails on it.
        """
        if clash := RESERVED.intersection(kwargs or {}):
            what = "chat_template_kwargs may not hold the template's own arguments"
            raise RequestError(what, got=sorted(clash), param="chat_template_kwargs")
        template = self._choose(tools is not None)
        prepared = prepare(messages)
        fit_content(prepared, self.takes_parts, self.takes_text)
        return self._run(
            template,
            {
                **self._named,
                **plain(kwargs or {}, "chat_template_kwargs"),
                "messages": prepared,
                "tools": plain(tools, "tools"),
                "documents": plain(documents, "documents"),
                "add_generation_prompt": add_generation_prompt,
            },
        )

    def _choose(self, with_tools: bool) -> jinja2.Template:
        for name in ("tool_use", "default") if with_tools else ("default",):
            if name in self._templates:
                return self._templates[name]
        hint = "Use /v1/completions, or start the server with --chat-template FILE."
        what = "this model has no default chat template" if self._templates else "this model has no chat template"
        raise RequestError(what, got=sorted(self._templates) or None, hint=hint, param="messages")

    def _run(self, template: jinja2.Template, variables: Mapping[str, Any], num_steps: int = MAX_TEMPLATE_STEPS) -> str:
        """Renders under the budget; whatever a template throws at its input is the request's failure, not ours."""
        budget = self._environment.budget
        pieces = []
        with self._lock:
            budget.restart(num_steps)
            try:
                for piece in template.generate(variables):
                    budget.output(len(piece))
                    pieces.append(piece)
            except RaisedByTemplate as error:
                what = "the model's chat template refuses these messages"
                raise RequestError(what, got=error.message, param="messages") from error
            except jinja2.exceptions.SecurityError as error:
                what = "the model's chat template was stopped on these messages"
                raise RequestError(what, got=error.message, param="messages") from error
            except Exception as error:  # noqa: BLE001 - a template can raise anything that its expressions can
                what = "the model's chat template cannot render these messages"
                raise RequestError(what, got=type(error).__name__, param="messages") from error
        return "".join(pieces)

    def _compile(self, name: str, source: str) -> jinja2.Template:
        try:
            return self._environment.compile_chat(source)
        except jinja2.TemplateSyntaxError as error:
            what = f"the chat template {name!r} does not compile"
            raise BrokenCheckpoint(what, got=f"line {error.lineno}: {error.message}") from error
        except (jinja2.TemplateError, SyntaxError, RecursionError, MemoryError, ValueError, TypeError) as error:
            raise BrokenCheckpoint(f"the chat template {name!r} does not compile", got=type(error).__name__) from error

    def _reads(self, role: str, as_parts: bool) -> bool:
        """Whether content in this form reaches the text, and reads as the other form does where both do."""
        if "default" not in self._templates:
            return not as_parts
        text = self._probe(role, _PROBE)
        if not as_parts:
            return _PROBE in text or _PROBE not in self._probe(role, [{"type": "text", "text": _PROBE}])
        parts = self._probe(role, [{"type": "text", "text": _PROBE}])
        return parts == text if _PROBE in text else _PROBE in parts and "'type'" not in parts

    def _probe(self, role: str, content: Any) -> str:
        """A short conversation around one message of this role; "" when the template cannot render it."""
        template = self._templates["default"]
        variables: dict[str, Any] = {**self._named, "tools": None, "documents": None, "add_generation_prompt": True}
        try:
            variables["messages"] = _probe_conversation(role, content)
            return self._run(template, variables, _PROBE_STEPS)
        except RequestError:
            return ""


def read_sources(folder: Path) -> dict[str, str]:
    """Template texts by name: chat_template.jinja and additional_chat_templates/ before tokenizer_config.json.

    {} when the folder has none; BrokenCheckpoint when `chat_template` has a shape nobody writes.
    """
    default = read_text(folder, "chat_template.jinja")
    extra = folder / "additional_chat_templates"
    sources = {file.stem: read_text(extra, file.name) or "" for file in sorted(extra.glob("*.jinja"))}
    if default is not None:
        sources["default"] = default
    return sources or _from_config(folder)


def _from_config(folder: Path) -> dict[str, str]:
    value = read_json(folder, "tokenizer_config.json").get("chat_template")
    if value is None:
        return {}
    if isinstance(value, str):
        return {"default": value}
    entries = [{"name": name, "template": text} for name, text in value.items()] if isinstance(value, dict) else value
    try:
        sources = {entry["name"]: entry["template"] for entry in entries}
    except (KeyError, TypeError):
        sources = {"": None}
    if not all(isinstance(text, str) for pair in sources.items() for text in pair):
        what = f"chat_template in {folder / 'tokenizer_config.json'} is malformed"
        raise BrokenCheckpoint(what, got=value, allowed="a string, or a list of {name, template}")
    return sources


def _read_override(path: Path) -> str:
    text = read_text(path.parent, path.name)
    if text is None:
        raise InvalidSetting("--chat-template names a file that does not exist", got=str(path), param="chat_template")
    return text


def _digest(sources: Mapping[str, str]) -> str:
    if not sources:
        return ""
    text = sources["default"] if list(sources) == ["default"] else json.dumps(sorted(sources.items()))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _probe_conversation(role: str, content: Any) -> list[dict[str, Any]]:
    probe = {"role": role, "content": content}
    if role in ("system", "developer"):
        return [probe, {"role": "user", "content": "Hello"}]
    if role == "user":
        return [probe]
    if role == "assistant":
        return [{"role": "user", "content": "Hello"}, probe, {"role": "user", "content": "Go on"}]
    call = {"id": "call00001", "type": "function", "function": {"name": "look", "arguments": {"at": "it"}}}
    return [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {**probe, "tool_call_id": "call00001", "name": "look"},
    ]
