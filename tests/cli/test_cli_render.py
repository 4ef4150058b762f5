"""`quire render` and what the server says of text at its start: the same path as a request's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import quire
from quire import settings
from quire.cli.main import app
from quire.cli.resolve import BUNDLED
from quire.text.formats.catalogue import REASONING_FORMATS, TOOL_FORMATS
from quire.text.template import ChatTemplate
from quire.text.tokenizer import Tokenizer

pytestmark = pytest.mark.skipif(not (BUNDLED / "config.json").is_file(), reason="the bundled model is not built")
QUESTION = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Grüße 🦊"}]


def shown(*arguments: str) -> tuple[str, str]:
    done = CliRunner().invoke(app, ["render", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout, done.stderr


def test_text_goes_to_stdout_as_it_is_and_ids_to_stderr() -> None:
    text, ids = shown("Grüße 🦊", "--system", "Be kind.")
    tokenizer = Tokenizer.from_folder(BUNDLED)
    assert text == ChatTemplate.from_folder(BUNDLED, now=lambda: pytest.fail("no clock")).render(QUESTION)
    assert [int(each) for each in ids.partition(": ")[2].split()] == tokenizer.encode(text, add_special_tokens=False)
    assert shown("--raw", "Once")[0] == "Once"


def test_a_request_body_is_rendered_whole(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "now"}}
    file = tmp_path / "request.json"
    file.write_text(json.dumps({"messages": QUESTION, "tools": [tool], "temperature": 0.5}), encoding="utf-8")
    said = json.loads(shown(f"@{file}", "--json")[0])
    assert '"now"' in said["prompt"]
    assert said["sampling"]["temperature"] == 0.5
    assert said["token_ids"] == Tokenizer.from_folder(BUNDLED).encode(said["prompt"], add_special_tokens=False)


@pytest.mark.parametrize(("text", "says"), [("{", "not valid JSON"), ('{"messages": []}', "messages is empty")])
def test_what_a_request_could_not_say_is_refused(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "request.json"
    file.write_text(text, encoding="utf-8")
    done = CliRunner().invoke(app, ["render", f"@{file}"])
    assert done.exit_code == 1
    assert says in done.stderr
    assert "cannot be read" in CliRunner().invoke(app, ["render", f"@{tmp_path / 'absent'}"]).stderr


def test_the_options_name_every_format_there_is() -> None:
    assert ("auto", "none", *TOOL_FORMATS) == settings.TOOL_FORMATS
    assert ("auto", "none", *REASONING_FORMATS) == settings.REASONING_FORMATS
    assert quire.__version__
