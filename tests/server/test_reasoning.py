"""Reasoning over HTTP: told apart from content, counted, switched by the template's own names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from served import NOW, TOKENIZER, Served, says, served
from test_tools import HI, TOOLS, calls_of, streamed

from quire.errors import UnsupportedField
from quire.server.speech import Spoken
from quire.text.template import ChatTemplate

CHAT = "/v1/chat/completions"
THINKS = """\
{%- for m in messages %}<|im_start|>{{ m.role }}
{% if m.reasoning_content %}<think>
{{ m.reasoning_content }}
</think>

{% endif %}{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking %}<think>
{% endif %}{% if reasoning_effort is defined %}({{ reasoning_effort }}){% endif %}{% endif %}"""


def template_of(source: str) -> ChatTemplate:
    return ChatTemplate({"default": source}, {"bos_token": "", "eos_token": ""}, NOW)


@pytest.mark.parametrize("body", [{}, {"chat_template_kwargs": {"enable_thinking": True}}])
def test_reasoning_is_no_content(body: dict[str, Any]) -> None:
    text = "Hm, 2 < 3.\n</think>\n\nIt is 3."
    with served(says(text if body else f"<think>\n{text}"), template=template_of(THINKS)) as server:
        asked = {"messages": HI, **body}
        answer = server.post(CHAT, asked).json()
        message = answer["choices"][0]["message"]
        assert (message["reasoning_content"], message["content"]) == ("Hm, 2 < 3.", "It is 3.")
        assert message["reasoning"] == message["reasoning_content"]
        thought = answer["usage"]["completion_tokens_details"]["reasoning_tokens"]
        assert 5 < thought < answer["usage"]["completion_tokens"] - 3
        told = streamed(server.post(CHAT, {**asked, "stream": True}).events())
        assert (told["reasoning_content"], told["content"], told["finish"]) == ("Hm, 2 < 3.", "It is 3.", "stop")
        silent = server.post(CHAT, {**asked, "include_reasoning": False}).json()["choices"][0]["message"]
        assert silent["content"] == "It is 3."
        assert "reasoning_content" not in silent
        again = server.post(CHAT, {"messages": [*HI, message, *HI]})
        assert again.status == 200


def test_effort_is_what_the_template_calls_it() -> None:
    with served(template=template_of(THINKS)) as server:

        def prompt(**body: Any) -> str:
            return server.post(f"{CHAT}/render", {"messages": HI, **body}).json()["prompt"].rpartition("assistant\n")[2]

        assert prompt() == ""
        assert prompt(reasoning_effort="high") == "<think>\n(high)"
        assert prompt(reasoning_effort="minimal") == "<think>\n(low)"
        assert prompt(reasoning_effort="none") == "(low)"
        assert prompt(reasoning_effort="low", chat_template_kwargs={"enable_thinking": False}) == "(low)"
        assert server.post(CHAT, {"messages": HI, "reasoning_effort": "much"}).error["param"] == "reasoning_effort"


@pytest.mark.parametrize(
    ("name", "effort", "kwargs"),
    [
        ("Qwen-Qwen3-0.6B", "none", {"enable_thinking": False}),
        ("Qwen-Qwen3-0.6B", "high", {"enable_thinking": True}),
        ("deepseek-ai-DeepSeek-V3.1", "low", {"enable_thinking": True, "thinking": True}),
        ("openai-gpt-oss-120b", "high", {"reasoning_effort": "high"}),
        ("openai-gpt-oss-120b", "minimal", {"reasoning_effort": "low"}),
        ("openai-gpt-oss-120b", "none", None),
        ("MiniMax-M2", "none", None),
        ("MiniMax-M2", "medium", {}),
        ("google-gemma-2-2b-it", "none", {}),
        ("google-gemma-2-2b-it", "high", None),
    ],
)
def test_effort_for_real_templates(name: str, effort: str, kwargs: dict[str, Any] | None, shared_data: Path) -> None:
    """None: the model cannot do that, and it is said."""
    source = (shared_data / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")
    spoken = Spoken.of(template_of(source), TOKENIZER, "auto", "auto")
    if kwargs is None:
        with pytest.raises(UnsupportedField):
            spoken.template_kwargs(effort)
    else:
        assert spoken.template_kwargs(effort) == kwargs


def test_a_model_that_always_reasons_cannot_be_told_not_to(shared_data: Path) -> None:
    source = (shared_data / "chat_templates" / "deepseek-ai-DeepSeek-R1-Distill-Llama-8B.jinja").read_text(
        encoding="utf-8"
    )
    with served(says("Well.\n</think>\n\nYes."), template=template_of(source)) as server:
        assert server.post(CHAT, {"messages": HI, "reasoning_effort": "none"}).status == 400
        message = server.post(CHAT, {"messages": HI}).json()["choices"][0]["message"]
        assert (message["reasoning_content"], message["content"]) == ("Well.", "Yes.")


def test_channels(shared_data: Path) -> None:
    source = (shared_data / "chat_templates" / "openai-gpt-oss-120b.jinja").read_text(encoding="utf-8")
    text = (
        "<|channel|>analysis<|message|>They ask for the time.<|end|>"
        "<|start|>assistant<|channel|>commentary to=functions.now <|constrain|>json<|message|>{}<|call|>"
    )
    with served(says(text), template=template_of(source)) as server:
        for stream in (False, True):
            tools = [{**tool, "function": {"description": "", **tool["function"]}} for tool in TOOLS]
            answer = server.post(CHAT, {"messages": HI, "tools": tools, "stream": stream})
            message = streamed(answer.events()) if stream else answer.json()["choices"][0]["message"]
            assert message["reasoning_content"] == "They ask for the time."
            assert calls_of(message) == [("now", {})]
            assert not message["content"]


def test_what_needs_constrained_answers_or_reasoning_is_refused(talker: Served) -> None:
    error = talker.chat(thinking_token_budget=5).error
    assert error["param"] == "thinking_token_budget"
