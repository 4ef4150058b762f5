"""The generators: the same seed writes the same text, and a check accepts the right answer and no other."""

from __future__ import annotations

from random import Random

import pytest

pytest.importorskip("jinja2", reason="the training text is rendered with jinja2")

from training import mixture
from training.chat import render, render_conversation
from training.conversation import assistant, user
from training.skills import arithmetic, stories, tool_calls

SKILLS = list(mixture.SKILLS.items())
DAMAGE = {
    "arithmetic": lambda right: right[:-1] + "1.",
    "json_filling": lambda right: right[:-1],
    "tool_calls": lambda right: right.replace('"name": "', '"name": "x'),
    "about_quire": lambda right: right[:-1],
    "dialogue": lambda right: "x" + right.replace("know", "no"),
    "stories": lambda right: right[:200],
}


@pytest.mark.parametrize(("name", "skill"), SKILLS)
def test_the_same_seed_writes_the_same_conversations(name, skill):
    first, second = Random(3), Random(3)
    for _ in range(50):
        assert skill.train(first) == skill.train(second)


@pytest.mark.parametrize(("name", "skill"), SKILLS)
def test_a_check_accepts_the_right_answer_and_refuses_wrong_ones(name, skill):
    rng = Random(5)
    for _ in range(200):
        question = skill.held_out(rng)
        assert question.check(question.right), question
        for wrong in ("", "no idea", DAMAGE[name](question.right)):
            assert not question.check(wrong), (question, wrong)


@pytest.mark.parametrize(("name", "skill"), SKILLS)
def test_a_conversation_ends_with_the_assistant(name, skill):
    rng = Random(7)
    for _ in range(50):
        conversation = skill.train(rng)
        assert conversation.messages[-1]["role"] == "assistant"
        assert render_conversation(conversation).endswith("<|im_end|>\n")


@pytest.mark.parametrize(
    ("a", "b", "operation", "result"),
    [
        (999, 999, "+", 1998),
        (7, 96, "+", 103),
        (500, 1, "-", 499),
        (42, 42, "-", 0),
        (9, 99, "*", 891),
        (0, 37, "*", 0),
    ],
)
def test_arithmetic_is_right_at_its_edges(a, b, operation, result):
    assert arithmetic.solve(a, b, operation).endswith(f"{a} {operation} {b} = {result}.")


def test_every_column_of_every_sum_is_true():
    rng = Random(11)
    for _ in range(300):
        message = arithmetic.train(rng).messages[-1]["content"]
        for step in message.rstrip(".").replace("so ", "").split(", "):
            left, right = step.split(" = ")
            terms = left.split(" ")
            value = int(terms[0])
            if len(terms) > 1 and terms[1] == "*":
                value *= int(terms[2])
                terms = terms[2:]
            for sign, term in zip(terms[1::2], terms[2::2], strict=True):
                value += int(term) if sign == "+" else -int(term)
            assert value == int(right), message


def test_held_out_pairs_are_the_same_in_both_orders():
    pairs = [(a, b) for a in range(10, 60) for b in range(10, 60)]
    assert all(arithmetic.is_held_out(a, b, "+") == arithmetic.is_held_out(b, a, "+") for a, b in pairs)
    share = sum(arithmetic.is_held_out(a, b, "+") for a, b in pairs) / len(pairs)
    assert 0.05 < share < 0.2


def test_held_out_tool_names_are_never_trained_on():
    rng = Random(13)
    for _ in range(500):
        for tool in tool_calls.train(rng).tools:
            assert not set(tool["function"]["name"].split("_")) & set(tool_calls.HELD_OUT_NOUNS)


def test_stories_have_the_promised_length():
    rng = Random(17)
    assert all(60 <= len(stories.raw(rng).split()) <= 200 for _ in range(200))


def test_the_template_writes_tools_calls_and_results():
    function = {"name": "get_time", "arguments": {"city": "Oslo"}}
    messages = [
        user("Time?"),
        {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": function}]},
        {"role": "tool", "content": "12:30"},
        assistant("It is 12:30."),
    ]
    text = render(messages, [tool_calls.make_tool("get_time", "Get the time", [])], add_generation_prompt=True)
    assert '<tools>\n{"name": "get_time", "description"' in text
    call = '<tool_call>\n{"name": "get_time", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>\n'
    assert "<|im_start|>assistant\n" + call in text
    assert "<|im_start|>user\n<tool_response>\n12:30\n</tool_response><|im_end|>\n" in text
    assert text.endswith("<|im_start|>assistant\n")


def test_arguments_may_be_a_string_and_content_may_be_parts():
    call = {"function": {"name": "f", "arguments": '{"a": 1}'}}
    messages = [user([{"type": "text", "text": "Go."}]), {"role": "assistant", "content": "", "tool_calls": [call]}]
    text = render(messages)
    assert "<|im_start|>user\nGo.<|im_end|>" in text
    assert '{"name": "f", "arguments": {"a": 1}}' in text
