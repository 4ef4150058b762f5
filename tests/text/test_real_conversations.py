"""Real conversations and real tools through every real template: the text is transformers' own.

Knows: the shared prompts and BFCL. Does not know: what a template is for.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from .conversations import assistant, call, result, user
from .formats.test_detect import example, functions
from .test_template import NAMES, made, oracle, ours

__all__ = ["oracle"]
SAMPLED = 12  # of each kind, by each template


@pytest.fixture(scope="module")
def talks(shared_data: Path) -> list[list[dict[str, Any]]]:
    """Turns of MT-bench with GPT-4's answers, first questions of ShareGPT, naughty strings."""
    bench = shared_data / "prompts" / "mt_bench"
    asked = {each["question_id"]: each["turns"] for each in lines(bench / "question.jsonl")}
    told = {each["question_id"]: each["choices"][0]["turns"] for each in lines(bench / "reference_gpt-4.jsonl")}
    found = [[user(asked[key][0]), assistant(told[key][0]), user(asked[key][1])] for key in sorted(told)]
    shared = json.loads((shared_data / "prompts" / "sharegpt" / "ShareGPT_V3_filtered_500.json").read_text("utf-8"))
    found += [[user(each["conversations"][0]["value"])] for each in shared]
    (naughty,) = shared_data.glob("utf8/**/blns.txt")
    return found + [[user(line)] for line in naughty.read_text("utf-8").splitlines() if line]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("name", NAMES)
def test_real_conversations(name: str, shared_data: Path, talks: list[list[dict[str, Any]]], oracle: Any) -> None:
    source = (shared_data / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")
    template = made(source)
    for messages in random.Random(name).sample(talks, 3 * SAMPLED):
        want = oracle(source, messages)
        assert ours(template, messages) == want
        assert (want is None) == name.endswith("tool_use")  # that one is for tools alone


@pytest.mark.parametrize("name", NAMES)
def test_real_tools_and_calls_of_them(name: str, shared_data: Path, oracle: Any) -> None:
    source = (shared_data / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")
    template, chance = made(source), random.Random(name)
    num_rendered = 0
    for tool in chance.sample(functions(shared_data), SAMPLED):
        tools = [{"type": "function", "function": tool}]
        told = [call(tool["name"], example(tool["parameters"], chance))]
        turns = [user("What now?"), assistant("", tool_calls=told), result('{"ok": true}')]
        for messages in (turns[:1], turns):
            want = oracle(source, messages, tools=tools)
            assert ours(template, messages, tools=tools) == want
            num_rendered += want is not None
    assert num_rendered >= SAMPLED
