"""Chat templates against transformers, on every template and conversation we have, and against attacks.

Knows: real templates. Does not know: tokenizers.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.errors import BrokenCheckpoint, InvalidSetting, RequestError
from quire.text.messages import join_parts, parse_arguments
from quire.text.template import ChatTemplate

from .conversations import MESSAGES, PARTS, SETTINGS, SYSTEM, TOOLS, assistant, call, user

NAMES = [
    "GLM-4.6", "HuggingFaceTB-SmolLM3-3B", "MiniMax-M2", "Mistral-Small-3.2-24B-Instruct-2506",
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use", "Qwen-Qwen2.5-7B-Instruct", "Qwen-Qwen3-0.6B", "Qwen3-Coder",
    "Qwen3.5-4B", "deepseek-ai-DeepSeek-R1-Distill-Llama-8B", "deepseek-ai-DeepSeek-V3.1", "google-gemma-2-2b-it",
    "google-gemma-4-31B-it", "ibm-granite-granite-3.3-2B-Instruct", "meta-llama-Llama-3.1-8B-Instruct",
    "meta-llama-Llama-3.2-3B-Instruct", "microsoft-Phi-3.5-mini-instruct", "mistralai-Mistral-Nemo-Instruct-2407",
    "moonshotai-Kimi-K2", "openai-gpt-oss-120b",
]  # fmt: skip
SPECIALS = {"bos_token": "<s>", "eos_token": "</s>"}
NOON = datetime(2031, 3, 4, 12)


def noon() -> datetime:
    return NOON


def made(source: str) -> ChatTemplate:
    return ChatTemplate({"default": source}, SPECIALS, noon)


def render(source: str, **kwargs: Any) -> str:
    return made(source).render([user("Hi")], kwargs=kwargs)


@pytest.fixture(scope="module")
def oracle() -> Any:
    """transformers' own rendering, told the same date."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIALS)
    module = transformers.utils.chat_template_utils

    class Frozen(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return NOON

    def apply(source: str, messages: list[dict[str, Any]], **settings: Any) -> str | None:
        extra = settings.pop("kwargs", {})
        settings.setdefault("add_generation_prompt", True)
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(module, "datetime", Frozen)
                return tokenizer.apply_chat_template(
                    messages, chat_template=source, tokenize=False, **settings, **extra
                )
        except Exception:  # noqa: BLE001 - what it raises depends on the template
            return None

    return apply


def ours(template: ChatTemplate, messages: list[dict[str, Any]], **settings: Any) -> str | None:
    try:
        return template.render(messages, **settings)
    except RequestError:
        return None


@pytest.mark.parametrize("name", NAMES)
def test_renders_what_transformers_renders(name: str, shared_data: Path, oracle: Any) -> None:
    source = (shared_data / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")
    template = made(source)
    num_rendered = 0
    for title, messages in MESSAGES.items():
        for setting, options in SETTINGS.items():
            want = oracle(source, messages, **options)
            assert ours(template, messages, **options) == want, (title, setting)
            num_rendered += want is not None
    assert num_rendered > 30


@pytest.mark.parametrize("name", NAMES)
def test_parts_are_read_by_every_template(name: str, shared_data: Path, oracle: Any) -> None:
    """As parts where the template reads them, else joined; a template never shows Python's spelling of a list."""
    source = (shared_data / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")
    template = made(source)
    text = join_parts(PARTS, "content")
    for role in ("user", "assistant"):
        turns = [user(PARTS)] if role == "user" else [user("a"), assistant(PARTS), user("b")]
        joined = [{**turn, "content": text if turn["content"] is PARTS else turn["content"]} for turn in turns]
        want = oracle(source, turns if role in template.takes_parts else joined)
        got = ours(template, turns)
        assert got == want
        assert (got is None) == (oracle(source, joined) is None)
        assert "'type'" not in (got or "")


def test_which_templates_read_parts(shared_data: Path) -> None:
    reads = {}
    for name in NAMES:
        source = (shared_data / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")
        reads[name] = "user" in made(source).takes_parts
    assert {name for name, parts in reads.items() if parts} == {
        "GLM-4.6", "MiniMax-M2", "Mistral-Small-3.2-24B-Instruct-2506", "Qwen3.5-4B", "google-gemma-4-31B-it",
        "moonshotai-Kimi-K2",
    }  # fmt: skip


def test_a_template_that_only_reads_parts_gets_strings_as_parts() -> None:
    source = "{% for m in messages %}{% for p in m.content %}{{ p.text }};{% endfor %}{% endfor %}"
    assert made(source).render([user("Hi"), user(PARTS)]) == "Hi;First part.;Second  part;"


@settings(deadline=None, max_examples=60)
@given(text=st.text(max_size=40))
def test_text_passes_through_unchanged(text: str) -> None:
    assert made("{% for m in messages %}{{ m.content }}{% endfor %}").render([user(text)]) == text


# One template a line, however long.
# ruff: noqa: E501
@pytest.mark.parametrize(
    "source",
    [
        "{{ messages | tojson }} {{ messages | tojson(indent=2) }} {{ tools | tojson(sort_keys=true) }}",
        "{{ messages[0] | tojson(ensure_ascii=true, separators=(',', ':')) }}",
        "  {% for m in messages %}\n  {{ m.content }}\n  {% endfor %}\n  {# note #}\nend\n",
        "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% if i > 4 %}{% break %}{% endif %}{% endfor %}",
        "{% set x = 1 %}{% generation %}{% set x = 2 %}a{{ x }} {% endgeneration %}{{ x }}",
        "{% set ns = namespace(n=0, self=3) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n ~ ns.self }}",
        "{% set ns = namespace(_n=0) %}{{ ns._n }}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
        "{{ dict(a=1, b=[2]).items() | list }} {{ dict([('k', none)]) }} {{ dict.fromkeys('ab') }}",
        "{% macro f(x, y=2) %}[{{ x ~ y ~ missing ~ none }}]{% endmacro %}{{ f(1) }}{{ f('a', y='<&>') }}{{ caller is defined }}",
        "{% call(x) wrap() %}{{ x }}{% endcall %}{% macro wrap() %}<{{ caller(1) }}>{% endmacro %}",
        "{% macro wrap() %}<{{ caller(1) }}>{% endmacro %}{% call(x) wrap() %}{{ x }}{% endcall %}",
        "{% for m in messages recursive %}{{ loop.index }}{{ loop(m.kids) if m.kids }}{% else %}none{% endfor %}",
        "{% for k, v in messages[0].items() if k != 'role' %}{{ k }}={{ v }}{{ loop.last }}{{ loop.nextitem }}{% endfor %}",
        "{{ strftime_now('%d %b %Y') }} {{ bos_token }}{{ eos_token }}{{ unk_token }} {{ documents }} {{ tools }}",
        "{{ raise_exception('No ' ~ messages[0].role) }}",
        "{{ messages[0].content.upper().center(20, '*') | indent(4) }} {{ '%s|%5d' % ('a', 3) }} {{ '{:>4}'.format(2) }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages | map(attribute='content') | join(',') }} {{ 7 // 2 }} {{ 2 ** 5 }} {{ 'ab' * 3 }} {{ [1] + [2] }}",
        "{{ missing.field }}",
        "{{ 1 / 0 }}",
        "{% include 'x' %}",
        "{{ add_generation_prompt }}{{ messages[0].thinking }}{{ messages[0].reasoning_content }}",
        "{% filter upper %}{% for m in messages %}{{ m.role }}{% endfor %}{% endfilter %}{% set b %}q{% endset %}{{ b }}",
        "{% block a %}{{ messages[0].role }}{% for x in [1] %}{{ x }}{% endfor %}{% endblock %}{{ self.a() }}",
    ],
)
def test_template_language_is_the_one_transformers_has(source: str, oracle: Any) -> None:
    messages = [{**user("Zürich <b>"), "reasoning": "why"}, assistant("b")]
    assert ours(made(source), messages, tools=TOOLS) == oracle(source, messages, tools=TOOLS)


@pytest.mark.parametrize(
    "attack",
    [
        "{% for a in range(100000) %}{% for b in range(100000) %}{% for c in range(100000) %}{% endfor %}{% endfor %}{% endfor %}",
        "{{ range(10000000000) | list }}",
        "{% for a in 'x' * 2000 %}{% for b in 'x' * 2000 %}{% endfor %}{% endfor %}",
        "{{ 'a' * 10000000000 }}",
        "{{ [0] * 10000000000 }}",
        "{{ 9 ** (9 ** 9) }}",
        "{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
        "{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
        "{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set n.s = n.s.replace('a', n.s) %}{% endfor %}",
        "{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
        "{{ 'a'.ljust(10000000000) }}",
        "{{ 'a' | center(10000000000) }}",
        "{{ '%10000000000d' % 1 }}",
        "{{ '%*d' % (10000000000, 1) }}",
        "{{ '%10000000000d' | format(1) }}",
        "{{ '{:10000000000}'.format(1) }}",
        "{{ lipsum(n=10000000) }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% for i in range(900000) %}{{ messages[0].content * 40 }}{% endfor %}",
        "{{ ().__class__.__base__.__subclasses__() }}",
        "{{ messages.__class__ }}{{ messages[0].__init__.__globals__.os }}",
        "{{ (messages | attr('__class__')).mro() }}",
        "{{ namespace.__init__.__globals__['json'] }}",
        "{{ namespace().__init__.__globals__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ strftime_now.__closure__ }}",
        "{{ '{0.__class__.__mro__}'.format(1) }}",
        "{{ messages[0].content.format.__self__.__class__ }}{{ cycler.__init__.__globals__.os.getcwd() }}",
    ],
)
def test_attacks_and_runaways_are_ended_or_come_to_nothing(attack: str) -> None:
    assert not ours(made(attack), [user("Hi" * 20)])


def test_a_template_that_nests_too_deeply_to_compile_is_refused_at_load() -> None:
    with pytest.raises(BrokenCheckpoint):
        made("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}")


@pytest.mark.parametrize("source", ["{% for %}", "{{ a", "{% unknown %}", "{{ x | no_such_filter }}", "{% endif %}"])
def test_a_template_that_does_not_compile_is_refused_at_load(source: str) -> None:
    with pytest.raises(BrokenCheckpoint, match="'default' does not compile"):
        made(source)


def test_a_budget_is_per_rendering() -> None:
    template = made("{% for i in range(9000) %}{% endfor %}{% for i in range(100000) %}{% endfor %}ok")
    assert {template.render([user("Hi")]) for _ in range(4)} == {"ok"}


def test_what_the_template_says_reaches_the_caller_and_what_python_says_does_not() -> None:
    with pytest.raises(RequestError, match="refuses these messages; got No wizards"):
        render("{{ raise_exception('No wizards') }}")
    with pytest.raises(RequestError, match="cannot render these messages; got TypeError") as caught:
        render("{{ 'secret' + 1 }}")
    assert "secret" not in caught.value.message


def test_variables_of_the_request_arrive_and_cannot_replace_the_conversation() -> None:
    assert render("{{ enable_thinking }}{{ bos_token }}", enable_thinking=False, bos_token="B") == "FalseB"
    with pytest.raises(RequestError, match="may not hold") as caught:
        render("x", messages=[])
    assert caught.value.param == "chat_template_kwargs"


@pytest.mark.parametrize("messages", [[], ["Hi"], [{"role": "user", "content": object()}]])
def test_messages_that_are_none_are_refused(messages: list[Any]) -> None:
    with pytest.raises(RequestError):
        made("{{ messages }}").render(messages)


def test_a_part_without_text_is_refused_where_parts_are_joined() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:"}}
    with pytest.raises(RequestError, match=r"messages\[0\]\.content has a part without text; got image_url"):
        made("{{ messages[0].content }}").render([user([image])])


def test_arguments_of_tool_calls_become_objects() -> None:
    (message,) = parse_arguments([assistant("", tool_calls=[call("f", '{"a": [1]}'), call("g", ""), call("h", {})])])
    assert [entry["function"]["arguments"] for entry in message["tool_calls"]] == [{"a": [1]}, {}, {}]
    assert parse_arguments([user("x")]) == [user("x")]
    for bad in ("[1]", "{", "3"):
        with pytest.raises(RequestError, match="not a JSON object"):
            parse_arguments([assistant("", tool_calls=[call("f", bad)])])


def write_config(folder: Path, **config: Any) -> None:
    folder.joinpath("tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def from_folder(folder: Path, **kwargs: Any) -> ChatTemplate:
    return ChatTemplate.from_folder(folder, now=noon, **kwargs)


def test_where_templates_are_found(tmp_path: Path) -> None:
    write_config(tmp_path, chat_template="config {{ bos_token }}", bos_token={"content": "<s>"})
    assert from_folder(tmp_path).render([user("x")]) == "config <s>"
    tmp_path.joinpath("chat_template.jinja").write_text("file {{ bos_token }}")
    assert from_folder(tmp_path).render([user("x")]) == "file <s>"
    tmp_path.joinpath("mine").write_text("mine {{ bos_token }}")
    assert from_folder(tmp_path, override=tmp_path / "mine").render([user("x")]) == "mine <s>"
    with pytest.raises(InvalidSetting, match="does not exist"):
        from_folder(tmp_path, override=tmp_path / "nowhere.jinja")


def test_named_templates_are_chosen_by_tools(tmp_path: Path) -> None:
    write_config(tmp_path, chat_template=[{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}])
    template = from_folder(tmp_path)
    assert template.render([user("x")]) == "D"
    assert template.render([user("x")], tools=TOOLS) == "T"
    extra = tmp_path / "additional_chat_templates"
    extra.mkdir()
    extra.joinpath("tool_use.jinja").write_text("file T")
    tmp_path.joinpath("chat_template.jinja").write_text("file D")
    assert from_folder(tmp_path).render([user("x")], tools=TOOLS) == "file T"


def test_no_template_says_what_to_do(tmp_path: Path) -> None:
    template = from_folder(tmp_path)
    assert template.digest == ""
    with pytest.raises(RequestError, match=r"no chat template.*Use /v1/completions.*--chat-template"):
        template.render([user("x")])


@pytest.mark.parametrize("value", [3, [1], [{"name": "default"}], {"default": 3}])
def test_a_malformed_entry_is_refused(tmp_path: Path, value: Any) -> None:
    write_config(tmp_path, chat_template=value)
    with pytest.raises(BrokenCheckpoint, match="malformed"):
        from_folder(tmp_path)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    tmp_path.joinpath("chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(BrokenCheckpoint, match="cannot be read"):
        from_folder(tmp_path)


def test_the_digest_is_of_the_template_text() -> None:
    assert made("abc").digest == hashlib.sha256(b"abc").hexdigest()
    several = ChatTemplate({"default": "abc", "tool_use": "t"}, {}, noon)
    assert several.digest not in (made("abc").digest, made("t").digest)


def test_real_folders_render_as_transformers_loads_them(shared_data: Path) -> None:
    transformers = pytest.importorskip("transformers")
    for name in ("qwen2", "phi-3"):
        folder = shared_data / "tokenizers" / name
        theirs = transformers.AutoTokenizer.from_pretrained(str(folder))
        messages = [SYSTEM, user("Grüße"), assistant("a"), user("b")]
        want = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert from_folder(folder).render(messages) == want
