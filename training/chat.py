"""Messages and tools to prompt text, through the same Jinja template that the model ships.

Knows the template and how Hugging Face renders it; knows no tokens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from training.conversation import Conversation, Message, Tool

TEMPLATE_PATH = Path(__file__).with_name("chat_template.jinja")

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)
TOOL_CALL, TOOL_CALL_END = "<tool_call>", "</tool_call>"
ADDED_TOKENS = (TOOL_CALL, TOOL_CALL_END)


def template_text() -> str:
    """The template without its final newline, as transformers reads it."""
    return TEMPLATE_PATH.read_text(encoding="utf-8").rstrip("\n")


@cache
def _template() -> Template:
    # trim_blocks, lstrip_blocks and this tojson are what transformers sets.
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string(template_text())


def render(messages: Sequence[Message], tools: Sequence[Tool] = (), *, add_generation_prompt: bool = False) -> str:
    """The text that the model reads for these messages."""
    return _template().render(messages=messages, tools=tools, add_generation_prompt=add_generation_prompt)


def render_conversation(conversation: Conversation) -> str:
    return render(conversation.messages, conversation.tools)
