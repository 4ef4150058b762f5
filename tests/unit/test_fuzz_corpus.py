"""The inputs that fuzzing begins with, and those that it once found, go through their targets."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

FUZZ = Path(__file__).parents[2] / "fuzz"
INPUTS = sorted((FUZZ / "corpus").glob("*/*"))


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"fuzz_{name}", FUZZ / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    module = load("targets")
    place = tmp_path_factory.mktemp("fuzz")
    module.room = lambda: place
    return module


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_an_input_goes_through(targets: ModuleType, path: Path) -> None:
    targets.TARGETS[path.parent.name](path.read_bytes())


def test_every_target_has_a_beginning_and_a_place_in_the_run(targets: ModuleType) -> None:
    assert {path.parent.name for path in INPUTS} == set(targets.TARGETS) == set(load("run").ATHERIS)
    assert sum(path.stat().st_size for path in INPUTS) < 2**16


def test_the_seeds_are_those_in_the_repository() -> None:
    seeds = {f"{target}/{name}": data for target, name, data in load("seeds").seeds()}
    there = {f"{path.parent.name}/{path.name}": path.read_bytes() for path in INPUTS}
    assert {name: there.get(name) for name in seeds} == seeds, "run PYTHONPATH=. python fuzz/seeds.py"
