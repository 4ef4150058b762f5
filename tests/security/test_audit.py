"""Rules A and D while requests are served: nothing is unpickled, started, fetched, compiled or imported.

Knows: what `audited.py` prints. Does not know: how a request is answered.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from forbidden import CLIENTS, EXECUTING_MODULES

ROOT = Path(__file__).resolve().parents[2]
# Nothing in any request may lead here, be it the first.
NEVER = (
    "pickle.", "subprocess.", "os.", "socket.", "http.", "urllib.", "ftplib.", "smtplib.", "shutil.", "tempfile.",
    "webbrowser.", "builtins.input", "ctypes.dlopen", "cpython.", "sys.", "code.__new__", "marshal.load ",
)  # fmt: skip
# Once everything is loaded, not this either: the C call's view of a row of the mask is all that is left.
LATER = {"ctypes.cdata": "structured/matcher.py"}
# Libraries load these for purposes of their own; that nothing of ours calls them is what `NEVER` shows.
BORROWED = {
    "pickle": "logging.handlers and numpy, which could send and store objects so",
    "_pickle": "the same in C",
    "copyreg": "re",
    "marshal": "the interpreter, for its own compiled files",
    "zipimport": "the interpreter",
    "zipfile": "importlib.metadata, which may read a release's number from a wheel",
    "multiprocessing": "uvicorn, which could start workers",
    "logging.config": "uvicorn, which could be configured by a file",
    "socketserver": "logging.config and http.server",
    "http.client": "starlette, for the names of statuses",
    "http.server": "prometheus_client, which could serve its own page",
    "wsgiref.simple_server": "prometheus_client",
    "urllib.request": "prometheus_client, which could push",
}
FOREIGN = {"torch", "transformers", "safetensors", "jsonschema"}


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    program = Path(__file__).parent / "audited.py"
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, timeout=120, check=False, env={**os.environ}, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return dict(json.loads(done.stdout))


def test_the_requests_were_answered_and_alike(told: dict[str, Any]) -> None:
    first, second = told["statuses"]
    assert first == second
    assert {200, 400, 404} == set(first)


def test_the_hook_hears(told: dict[str, Any]) -> None:
    assert any(each["event"] == "import" for each in told["seen"] if each["phase"] == "first")


def test_nothing_is_unpickled_started_or_fetched(told: dict[str, Any]) -> None:
    wrong = [each for each in told["seen"] if each["event"].startswith(NEVER)]
    assert not wrong, wrong[:5]


def test_once_loaded_nothing_is_compiled_imported_or_opened(told: dict[str, Any]) -> None:
    wrong = [
        each
        for each in told["seen"]
        if each["phase"] == "second" and not each["from"].startswith(LATER.get(each["event"], "nowhere"))
    ]
    assert not wrong, wrong[:5]


def test_nothing_that_executes_is_loaded_but_what_libraries_load(told: dict[str, Any]) -> None:
    loaded = set(told["modules"]) & (EXECUTING_MODULES | CLIENTS | FOREIGN)
    assert loaded <= set(BORROWED)
