"""Rules A and D: nothing that executes what it reads, no client that fetches. Knows: the sources as syntax trees."""

from __future__ import annotations

import ast

import pytest
from forbidden import ALLOWED, offences

from tests.house_map import sources


def test_no_line_executes_what_it_reads_or_fetches_anything() -> None:
    found: dict[tuple[str, str], int] = {}
    for source in sources():
        for what, line in offences(source.name, source.tree, source.room):
            found[source.name, what] = line
    wrong = [f"{name}:{line}: {what}" for (name, what), line in found.items() if (name, what) not in ALLOWED]
    assert not wrong, "\n" + "\n".join(wrong)
    idle = [f"{name}: {what}" for name, what in ALLOWED if (name, what) not in found]
    assert not idle, f"no longer needed: {idle}"


SINS = (
    "import pickle",
    "import pickle as harmless",
    "from pickle import loads",
    "from concurrent.futures.process import ProcessPoolExecutor",
    "import xmlrpc.server",
    "def f():\n    import marshal",
    "eval('1')",
    "exec(code)",
    "compile(text, '', 'exec')",
    "__import__(name)",
    "import os\nos.system('x')",
    "from os import popen",
    "import torch\ntorch.load(path)",
    "import numpy as np\nnp.load(path)",
    "import numpy\nnumpy.load(path, allow_pickle=True)",
    "subprocess.run(command, shell=True)",
    "load(path, trust_remote_code=True)",
    "httpx_like(url, verify=False)",
    "from jinja2 import Environment",
    "import jinja2\njinja2.Template(text)",
    "import ctypes",
    "from ctypes import CDLL",
    "import importlib\nimportlib.import_module(name)",
    "from importlib import import_module\nimport_module(name)",
    "class A:\n    def __reduce__(self): ...",
    "import httpx",
    "import urllib.request",
    "from urllib import request",
    "from http import client",
    "import huggingface_hub",
    "import tempfile\ntempfile.mktemp()",
)
VIRTUES = (
    "import json\njson.loads(text)",
    "from urllib.parse import urlsplit",
    "import re\nre.compile(x)",
    "from jinja2.sandbox import ImmutableSandboxedEnvironment",
    "from http import HTTPStatus",
    "subprocess.run([program], shell=False)",
    "client.get(url, verify=True)",
    "model.load(path)",
    "from concurrent.futures import ThreadPoolExecutor",
)


@pytest.mark.parametrize("text", SINS)
def test_each_sin_is_seen(text: str) -> None:
    assert list(offences("server/x.py", ast.parse(text), "server"))


@pytest.mark.parametrize("text", VIRTUES)
def test_what_only_looks_like_one_is_not(text: str) -> None:
    assert not list(offences("server/x.py", ast.parse(text), "server"))


def test_the_command_line_may_fetch_and_nobody_else() -> None:
    tree = ast.parse("import httpx\nimport huggingface_hub")
    assert not list(offences("cli/x.py", tree, "cli"))
    for room in ("server", "engine", "text", "weights", "words"):
        assert len(list(offences("x.py", tree, room))) == 2
