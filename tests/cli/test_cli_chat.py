"""`quire chat` and `quire run`: turns, commands, interruption, a full context; over a model that repeats."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from quire.cli.chat import COMMANDS, Chat, lines
from quire.cli.main import app
from quire.cli.resolve import BUNDLED
from quire.errors import ContextLengthExceeded, RequestError
from quire.outputs import CompletionOutput, RequestOutput
from quire.request import SamplingParams

needs_model = pytest.mark.skipif(not (BUNDLED / "config.json").is_file(), reason="the bundled model is not built")


class Parrot:
    """An `LLM` that repeats the last message, or does what a test wants of a turn."""

    def __init__(self) -> None:
        self.plan = SimpleNamespace(max_model_len=100, model="parrot")
        self.asked: list[list[dict[str, str]]] = []
        self.params: list[SamplingParams] = []
        self.turn: Callable[[], None] | None = None
        self.finish, self.num_tokens = "stop", 3

    def chat_prompt(self, messages: Any) -> Any:
        self.asked.append(list(messages))
        return {"prompt": "x", "prompt_token_ids": [1, 2]}

    def stream(self, prompt: Any, params: SamplingParams) -> Generator[str, None, RequestOutput]:
        self.params.append(params)
        words = self.asked[-1][-1]["content"].split()
        for number, word in enumerate(words):
            if number == 1 and self.turn is not None:
                self.turn()
            yield word + " "
        sample = CompletionOutput(0, token_ids=[0] * self.num_tokens, finish_reason=self.finish)
        return RequestOutput("0", "x", [1, 2], [sample])


class Talk:
    """A chat with a parrot; what was written and what was said."""

    def __init__(self) -> None:
        self.model = Parrot()
        self.written: list[str] = []
        self.told: list[str] = []
        self.chat = Chat(self.model, "parrot", SamplingParams(max_tokens=9), self.written.append, self.told.append)  # type: ignore[arg-type]

    def take(self, *texts: str) -> Talk:
        for text in texts:
            self.chat.take(text + "\n")
        return self

    @property
    def text(self) -> str:
        return "".join(self.written)


@pytest.fixture
def talk() -> Talk:
    return Talk()


def test_turns_are_remembered(talk: Talk) -> None:
    talk.take("hello there", "and again")
    assert talk.text == "hello there \nand again \n"
    assert talk.told == []
    assert [message["role"] for message in talk.model.asked[1]] == ["user", "assistant", "user"]
    assert talk.model.asked[1][1]["content"] == "hello there "


def test_empty_lines_are_nothing(talk: Talk) -> None:
    talk.take("", "   ")
    assert not talk.model.asked


def test_system_and_reset_begin_anew(talk: Talk) -> None:
    talk.take("one", "/system Be brief.", "two", "/reset", "three", "/system", "four")
    assert talk.model.asked[1] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "two"}]
    assert talk.model.asked[2][0]["role"] == "system"
    assert len(talk.model.asked[2]) == 2
    assert talk.model.asked[3] == [{"role": "user", "content": "four"}]


def test_temperature_is_set_or_refused(talk: Talk) -> None:
    talk.take("/temperature 0.25", "a", "/temperature 3", "/temperature warm", "/temperature", "/temperature nan", "b")
    assert [params.temperature for params in talk.model.params] == [0.25, 0.25]
    assert [("0 to 2" in said or "finite" in said) for said in talk.told] == [True] * 4


def test_save_writes_json_and_never_over_a_strangers_file(talk: Talk, tmp_path: Path) -> None:
    target, other = tmp_path / "talk.json", tmp_path / "other.txt"
    other.write_text("precious")
    talk.take("/system S", "hi", f"/save {target}", "more", f"/save {target}", f"/save {other}", "/save", "/save /no/x")
    saved = json.loads(target.read_text())
    assert [message["role"] for message in saved["messages"]] == ["system", "user", "assistant", "user", "assistant"]
    assert other.read_text() == "precious"
    assert "already" in talk.told[-3]
    assert "name of a file" in talk.told[-2]
    assert "cannot be written" in talk.told[-1]


def test_help_names_every_command_and_exit_leaves(talk: Talk) -> None:
    talk.take("/help", "/exit")
    assert all(usage in talk.told[0] for usage in COMMANDS)
    assert not talk.chat.is_open


def test_an_unknown_command_is_named_with_the_nearest(talk: Talk) -> None:
    talk.take("/rest")
    assert "/rest" in talk.told[0]
    assert "/reset" in talk.told[0]
    assert not talk.model.asked


def test_ctrl_c_ends_the_answer_and_keeps_what_was_said(talk: Talk) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    talk.model.turn = interrupt
    talk.take("one two three")
    assert talk.text == "one \n"
    assert talk.told == ["[interrupted]"]
    assert talk.chat.is_open
    talk.model.turn = None
    talk.take("on")
    assert talk.model.asked[-1][1] == {"role": "assistant", "content": "one "}


def test_a_full_context_is_said_and_nothing_is_trimmed(talk: Talk) -> None:
    def refuse() -> None:
        raise ContextLengthExceeded("the prompt does not fit", got="120 tokens", allowed="at most 99")

    talk.model.turn = refuse
    talk.take("a b")
    assert "the context is full" in talk.told[0]
    assert "/reset" in talk.told[0]
    assert talk.chat.messages == []


def test_an_answer_that_was_cut_says_by_what(talk: Talk) -> None:
    talk.model.finish = "length"
    talk.take("a")
    talk.model.num_tokens = 98
    talk.take("b")
    assert talk.told == ["[cut at --max-tokens 9]", "[the context is full: 100 tokens; /reset begins anew]"]


def test_a_template_that_refuses_is_said(talk: Talk) -> None:
    def refuse() -> None:
        raise RequestError("the model's chat template refuses these messages")

    talk.model.turn = refuse
    talk.take("a b")
    assert talk.told == ["[the model's chat template refuses these messages.]"]


def test_without_a_terminal_lines_come_from_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("a\nb"))
    assert list(lines(is_terminal=False)) == ["a\n", "b"]


@needs_model
def test_chat_through_pipes_answers_and_ends_with_its_input() -> None:
    result = CliRunner().invoke(
        app, ["chat", "--temperature", "0", "--max-tokens", "8"], input="Hello\n/nonsense\nHello\n"
    )
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("\n") >= 2
    assert "there is no /nonsense" in result.stderr
    assert "quire-mini" in result.stderr


@needs_model
def test_run_answers_on_stdout_and_the_same_as_json() -> None:
    arguments = ["run", "Hello!", "--temperature", "0", "--max-tokens", "12"]
    plain = CliRunner().invoke(app, arguments)
    assert plain.exit_code == 0, plain.stderr
    assert plain.stderr == ""
    answer = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert plain.stdout == answer["text"] + "\n"
    assert 1 <= answer["completion_tokens"] <= 12
    assert answer["finish_reason"] in ("stop", "length")


@needs_model
def test_run_reads_stdin_and_continues_raw_text() -> None:
    result = CliRunner().invoke(
        app, ["run", "-", "--raw", "--json", "--max-tokens", "2", "--seed", "1"], input="Once upon"
    )
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["completion_tokens"] <= 2


@needs_model
@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--temperature", "9"], "temperature is out of range"), (["--max-tokens", "0"], "max_tokens")],
)
def test_run_refuses_values_out_of_range(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["run", "hi", *arguments])
    assert result.exit_code == 1
    assert said in result.stderr
    assert result.stdout == ""


@needs_model
@pytest.mark.parametrize("arguments", [["run", "hi", "--model"], ["chat"]])
def test_a_model_without_a_chat_template_is_told_apart(arguments: list[str], tmp_path: Path) -> None:
    for path in BUNDLED.iterdir():
        if path.name not in ("chat_template.jinja", "tokenizer_config.json"):
            (tmp_path / path.name).symlink_to(path)
    config = json.loads((BUNDLED / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    result = CliRunner().invoke(app, [*arguments, str(tmp_path)])
    assert result.exit_code == 1
    assert "no chat template" in result.stderr
    assert "--raw" in result.stderr
