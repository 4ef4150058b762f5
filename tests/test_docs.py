"""What the documentation says is so: generated pages are fresh, links lead somewhere, named things exist."""

from __future__ import annotations

import ast
import importlib.util
import re
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

from quire.settings import EngineSettings, ServerSettings, flag

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("reference/options.md", "reference/metrics.md", "reference/api.md", "reference/limits.md", "layout.md")
LINK = re.compile(r"\[([^\]]*)\]\(([^)#]+)(?:#[^)]*)?\)")
NAMED = re.compile(r"\[`([A-Za-z_.]+)`\]\(([^)]+\.py)\)")


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generator", ROOT / "tools" / "docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def hand_written() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "benchmarks" / "peers.md"]


def defined_in(path: Path) -> set[str]:
    """Functions and classes of a file, methods as `Class.method`."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            inner = (each for each in node.body if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)))
            found |= {f"{node.name}.{each.name}" for each in inner}
    return found


@pytest.mark.parametrize("page", PAGES)
def test_a_generated_page_is_what_make_docs_would_write(generator: ModuleType, page: str) -> None:
    assert (ROOT / "docs" / page).read_text(encoding="utf-8") == generator.pages()[page], "run `make docs`"


def test_every_option_metric_and_route_is_on_its_page(generator: ModuleType) -> None:
    options = (ROOT / "docs/reference/options.md").read_text(encoding="utf-8")
    metrics = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
    api = (ROOT / "docs/reference/api.md").read_text(encoding="utf-8")
    for kind in (EngineSettings, ServerSettings):
        for entry in fields(kind):
            assert flag(entry.name) in options
            assert entry.metadata["help"] in options
    assert len(generator.Metrics().docs()) > 10
    for doc in generator.Metrics().docs():
        assert f"`{doc.name}`" in metrics
        assert doc.doc in metrics
    for path, method, _ in generator.ROUTES:
        assert f"`{method} {path}`" in api


@pytest.mark.parametrize("path", hand_written(), ids=lambda path: path.name)
def test_links_lead_to_files(path: Path) -> None:
    for text, target in LINK.findall(path.read_text(encoding="utf-8")):
        if not target.startswith(("http:", "https:")):
            assert (path.parent / target).exists(), f"[{text}]({target})"


def test_the_tour_names_functions_that_exist() -> None:
    tour = ROOT / "docs" / "tour.md"
    named = NAMED.findall(tour.read_text(encoding="utf-8"))
    assert len(named) > 40
    missing = [name for name, target in named if name not in defined_in((tour.parent / target).resolve())]
    assert not missing


def test_every_decision_is_numbered_once_and_says_why() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    numbers = [page.name[:3] for page in pages]
    assert len(numbers) >= 5
    assert numbers == sorted(set(numbers))
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert text.startswith(f"# {page.name[:3]} · ")


def test_the_readme_shows_the_public_api_as_it_is() -> None:
    """Its Python examples at least parse, and what they import from us is there."""
    import quire

    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module == "quire":
                assert {alias.name for alias in node.names} <= set(quire.__all__)
