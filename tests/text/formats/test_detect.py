"""Which dialect each real template writes, and that every call it renders is read back as the same call."""

from __future__ import annotations

import json
import random
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import quire
from quire.errors import InvalidSetting, RequestError
from quire.text.formats.detect import detect
from quire.text.formats.parser import open_parser, starts_in_thought
from quire.text.formats.said import calls_of, content_of, thought_of
from quire.text.template import ChatTemplate

from .answers import cut, no_marks

# Template: how it writes calls, how it marks reasoning. In brackets: known from what it tells the model.
WRITES = {
    "GLM-4.6": ("glm", "think"),
    "HuggingFaceTB-SmolLM3-3B": ("none", "think"),
    "MiniMax-M2": ("minimax", "think"),
    "Mistral-Small-3.2-24B-Instruct-2506": ("mistral", "none"),
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use": ("hermes", "none"),
    "Qwen-Qwen2.5-7B-Instruct": ("hermes", "none"),
    "Qwen-Qwen3-0.6B": ("hermes", "think"),
    "Qwen3-Coder": ("qwen3_coder", "none"),
    "Qwen3.5-4B": ("qwen3_coder", "think"),
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": ("none", "think"),
    "deepseek-ai-DeepSeek-V3.1": ("deepseek_v31", "think"),
    "google-gemma-2-2b-it": ("none", "none"),
    "google-gemma-4-31B-it": ("gemma4", "gemma_channel"),
    "ibm-granite-granite-3.3-2B-Instruct": ("(granite)", "think_response"),
    "meta-llama-Llama-3.1-8B-Instruct": ("llama3", "none"),
    "meta-llama-Llama-3.2-3B-Instruct": ("llama3", "none"),
    "microsoft-Phi-3.5-mini-instruct": ("none", "none"),
    "mistralai-Mistral-Nemo-Instruct-2407": ("mistral_list", "none"),
    "moonshotai-Kimi-K2": ("kimi_k2", "none"),
    "openai-gpt-oss-120b": ("harmony", "harmony"),
}
NO_TOOLS_SHOWN = {"deepseek-ai-DeepSeek-V3.1", "HuggingFaceTB-SmolLM3-3B", "google-gemma-2-2b-it"}
ASK = "What now?"
JSON_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": "string"}


def template_of(source: str) -> ChatTemplate:
    return ChatTemplate({"default": source}, {"bos_token": "<s>", "eos_token": "</s>"}, lambda: datetime(2031, 3, 4))


def real(shared_data: Path, name: str) -> ChatTemplate:
    return template_of((shared_data / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", WRITES)
def test_the_dialect_is_read_off_the_template(name: str, shared_data: Path) -> None:
    found = detect(real(shared_data, name))
    written = f"({found.tool_format})" if found.form.has_calls and not found.reads_back else found.tool_format
    assert (written, found.reasoning_format) == WRITES[name]
    if name in NO_TOOLS_SHOWN:
        assert not found.shows_tools


def test_the_bundled_model_writes_hermes() -> None:
    found = detect(ChatTemplate.from_folder(Path(quire.__file__).parent / "bundled", now=datetime.now))
    assert (found.tool_format, found.reasoning_format, found.shows_tools) == ("hermes", "none", True)


def functions(shared_data: Path) -> list[dict[str, Any]]:
    """BFCL's tools, their types as JSON Schema spells them, their names as OpenAI allows them."""
    found = []
    for file in sorted((shared_data / "tools" / "bfcl").glob("*.json")):
        for line in file.read_text(encoding="utf-8").splitlines()[:60]:
            for function in json.loads(line)["function"]:
                found.append({**function, "parameters": spelled(function["parameters"])})
    return found


def spelled(schema: Any) -> Any:
    if isinstance(schema, list):
        return [spelled(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kind = schema.get("type")
    fixed = {"type": JSON_TYPES.get(kind, kind)} if isinstance(kind, str) else {}
    return {key: spelled(value) for key, value in schema.items()} | fixed


def example(schema: Any, chance: random.Random) -> Any:
    """A value of a schema."""
    if schema.get("enum"):
        return chance.choice(schema["enum"])
    match schema.get("type"):
        case "object":
            return {key: example(each, chance) for key, each in schema.get("properties", {}).items()}
        case "array":
            return [example(schema.get("items", {"type": "string"}), chance) for _ in range(chance.randint(0, 2))]
        case "integer":
            return chance.randint(-5, 10**6)
        case "number":
            return chance.choice((0.5, -2.25, 3.0))
        case "boolean":
            return chance.random() < 0.5
    return chance.choice(("Zürich", "a b", "it's 5 o'clock", "x, y", "line\nbreak", "7", 'say "hi"'))


def rendered(
    template: ChatTemplate, tool: dict[str, Any], calls: list[dict[str, Any]], content: str
) -> tuple[str, str]:
    """(the prompt, the answer) of a conversation that ends with these calls."""
    tools = [{"type": "function", "function": tool}]
    asked = [{"role": "user", "content": ASK}]
    told = [
        {"id": "abcdef123", "type": "function", "function": {"name": tool["name"], "arguments": call}} for call in calls
    ]
    turns = [*asked, {"role": "assistant", "content": content, "tool_calls": told}]
    prompt = template.render(asked, tools=tools)
    text = template.render(turns, tools=tools, add_generation_prompt=False)
    place = len(prompt) if text.startswith(prompt) else text.rfind(ASK) + len(ASK)
    return text[:place], text[place:]


@pytest.mark.parametrize("name", [name for name, (calls, _) in WRITES.items() if calls[0] not in "(n"])
def test_a_rendered_call_is_read_back_as_the_same_call(name: str, shared_data: Path) -> None:
    template, chance = real(shared_data, name), random.Random(name)
    form = detect(template).form
    num_read = 0
    for tool in chance.sample(functions(shared_data), 40):
        schemas = {tool["name"]: tool["parameters"]}
        calls = [example(tool["parameters"], chance) for _ in range(chance.randint(1, 3))]
        content = chance.choice(("", "Let me look."))
        try:
            before, text = rendered(template, tool, calls, content)
        except RequestError:  # some write one call only, or no content beside calls
            before, text = rendered(template, tool, calls := calls[:1], content := "")
        calls = calls[: text.count(tool["name"])]  # gpt-oss's template writes the first call of several
        parser = open_parser(form, schemas, in_thought=starts_in_thought(form, before))
        said = [piece for part in cut(text, chance) for piece in parser.feed(part)] + parser.end()
        got = [(call.name, json.loads(call.arguments)) for call in calls_of(said)]
        assert got == [(tool["name"], call) for call in calls], text
        assert parser.is_whole
        no_marks(form, said)
        if content in text:  # some drop it beside calls
            assert content in content_of(said) + thought_of(said)
        num_read += len(got)
    assert num_read >= 40


def test_names_may_be_forced(shared_data: Path) -> None:
    template = real(shared_data, "Qwen-Qwen3-0.6B")
    assert detect(template, "none", "none").form.marks == ()
    found = detect(template, "glm", "brackets")
    assert (found.tool_format, found.reasoning_format) == ("glm", "brackets")
    assert detect(template, "harmony").reasoning_format == "harmony"
    with pytest.raises(InvalidSetting, match="do not go together"):
        detect(template, "harmony", "think")


def test_a_template_that_refuses_everything_has_no_format() -> None:
    found = detect(template_of("{{ raise_exception('no') }}"))
    assert (found.tool_format, found.reasoning_format, found.shows_tools) == ("none", "none", False)
