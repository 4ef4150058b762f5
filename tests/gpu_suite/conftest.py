"""Fixtures of the tests of `make gpu`. Knows: how a machine without most packages looks. Does not know: any part."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REFUSED = (
    "msgspec", "pydantic", "pydantic_core", "starlette", "uvicorn", "uvloop", "httptools", "jinja2", "typer", "rich",
    "llguidance", "prometheus_client", "huggingface_hub", "httpx", "transformers", "tokenizers", "safetensors",
    "quire.kernels.cpu._cpu",
)  # fmt: skip
HOOK = f'''
import sys

REFUSED = {REFUSED!r}


class Blind:
    """A finder that does not see them."""

    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        hidden = name in REFUSED or name.split(".")[0] in REFUSED
        return None if hidden else self.finder.find_spec(name, path, target)


sys.meta_path[:] = map(Blind, sys.meta_path)
'''


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """The environment of a Python, and of all that it starts, with torch, triton and NumPy alone, and nothing built."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(HOOK)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def python() -> str:
    """This interpreter."""
    return sys.executable
