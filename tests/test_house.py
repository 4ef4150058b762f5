"""The guardian of the house: who may import whom, how large things may grow, and what no line may do.

Everything here reads syntax trees, imports nothing of ours and takes well under a second.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator

import pytest
from house_map import (
    AMBIENT_MODULES,
    DEVELOPMENT_ONLY,
    EXECUTING,
    EXECUTING_ATTRIBUTES,
    EXECUTING_CALLS,
    FORBIDDEN_TEXT,
    GPU_DOORS,
    GPU_FOLDERS,
    GPU_ONLY,
    MAX_FILE_LINES,
    MAX_FUNCTION_LINES,
    MAY_NETWORK,
    MAY_READ_ENVIRONMENT,
    MAY_START_PROCESSES,
    NETWORK,
    ROOMS,
    ROOT,
    Source,
    imports_of,
    native_sources,
    sources,
    target_room,
)


def refuse(offences: list[str]) -> None:
    assert not offences, "\n" + "\n".join(offences)


def test_there_is_something_to_guard() -> None:
    assert len(sources()) > 20
    assert {"words", "engine", "scheduling", "models", "server", "cli"} <= {source.room for source in sources()}


def test_every_folder_is_a_room_of_the_picture() -> None:
    refuse([f"{source.name}: no such room in ROOMS" for source in sources() if source.room not in ROOMS])


def test_imports_run_the_way_of_the_house() -> None:
    offences = []
    for source in sources():
        allowed = ROOMS[source.room].may_import | {source.room}
        for module, name, line in imports_of(source):
            target = target_room(module, name)
            if target is not None and target not in allowed:
                offences.append(f"{source.name}:{line}: {source.room} may not import {target} ({module})")
    refuse(offences)


def test_the_words_and_each_room_use_only_their_libraries() -> None:
    offences = []
    for source in sources():
        for module, _, line in imports_of(source):
            top = module.split(".")[0]
            if top and top != "quire" and top not in sys.stdlib_module_names | ROOMS[source.room].may_use:
                offences.append(f"{source.name}:{line}: {source.room} may not use {top}")
    refuse(offences)


def test_imports_are_absolute_and_nobody_takes_a_private_name() -> None:
    offences = []
    for source in sources():
        for module, name, line in imports_of(source):
            if module.startswith("."):
                offences.append(f"{source.name}:{line}: relative import")
            if name == "*":
                offences.append(f"{source.name}:{line}: star import")
            if module.startswith("quire") and name and name.startswith("_") and name != "_cpu":
                offences.append(f"{source.name}:{line}: {module}.{name} is private")
    refuse([line for line in offences if "__version__" not in line])


def test_files_stay_small() -> None:
    sizes = [(source.name, source.text.count("\n")) for source in sources()]
    sizes += [(name, text.count("\n")) for name, text in native_sources()]
    refuse([f"{name}: {size} lines, at most {MAX_FILE_LINES}" for name, size in sizes if size > MAX_FILE_LINES])


def test_functions_stay_small() -> None:
    offences = []
    for source in sources():
        for node in source.nodes:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                if size > MAX_FUNCTION_LINES:
                    offences.append(f"{source.name}:{node.lineno}: {node.name} has {size} lines")
    refuse(offences)


def test_every_module_says_what_it_knows_and_what_not() -> None:
    offences = []
    for source in sources():
        doc = ast.get_docstring(source.tree) or ""
        if not (re.search(r"\bKnows\b", doc) and re.search(r"\b(Does|Do) not know\b|\bKnows no\b", doc)):
            offences.append(f"{source.name}: the docstring does not say what it knows and what it does not")
    refuse(offences)


def test_public_things_are_described() -> None:
    offences = []
    for source in sources():
        described = {node.name for node in _public_definitions(source.tree) if ast.get_docstring(node)}
        for node in _public_definitions(source.tree):
            if node.name not in described:  # a method may leave it to the class in the same file that it implements
                offences.append(f"{source.name}:{node.lineno}: {node.name} has no docstring")
    refuse(offences)


def _public_definitions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node
            for inner in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef)) and not inner.name.startswith("_"):
                    yield inner


def test_nothing_that_can_execute_is_read() -> None:
    offences = []
    for source in sources():
        for module, _, line in imports_of(source):
            if module.split(".")[0] in EXECUTING:
                offences.append(f"{source.name}:{line}: imports {module}")
        for node in source.nodes:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in EXECUTING_CALLS:
                offences.append(f"{source.name}:{node.lineno}: calls {node.func.id}")
            if isinstance(node, ast.Attribute) and (_name_of(node.value), node.attr) in EXECUTING_ATTRIBUTES:
                offences.append(f"{source.name}:{node.lineno}: {ast.unparse(node)}")
    refuse(offences)


def test_development_tools_stay_out_of_the_package() -> None:
    offences = []
    for source in sources():
        for module, _, line in imports_of(source):
            if module.split(".")[0] in DEVELOPMENT_ONLY:
                offences.append(f"{source.name}:{line}: imports {module}")
    refuse(offences)


def test_torch_stays_behind_the_gpu_doors() -> None:
    """Only the GPU's folders name it; only the files of a torch device import them, and nobody imports those at all:
    `ops/open_device.py` loads them by name."""
    offences = []
    behind = {folder.strip("/").replace("/", ".") for folder in GPU_FOLDERS}
    doors = {door.removesuffix(".py").replace("/", ".") for door in GPU_DOORS}
    for source in sources():
        if source.name.startswith(GPU_FOLDERS):
            continue
        for module, name, line in imports_of(source):
            inner = f"{module}.{name}".removeprefix("quire.")
            if module.split(".")[0] in GPU_ONLY:
                offences.append(f"{source.name}:{line}: imports {module}")
            elif source.name not in GPU_DOORS and any(f"{inner}.".startswith(f"{each}.") for each in behind | doors):
                offences.append(f"{source.name}:{line}: imports {inner}, which brings torch in")
    refuse(offences)


def test_only_the_porch_has_a_network() -> None:
    offences = []
    for source in sources():
        for module, _, line in imports_of(source):
            if module.split(".")[0] in NETWORK and source.room not in MAY_NETWORK:
                offences.append(f"{source.name}:{line}: {source.room} imports {module}")
    refuse(offences)


def test_processes_are_started_in_one_place() -> None:
    offences = []
    for source in sources():
        for module, _, line in imports_of(source):
            if module.split(".")[0] == "subprocess" and source.name not in MAY_START_PROCESSES:
                offences.append(f"{source.name}:{line}: imports subprocess")
    refuse(offences)


def test_no_clock_and_no_chance_in_what_must_be_reproducible() -> None:
    offences = []
    for source in sources():
        if not source.is_pure:
            continue
        for module, name, line in imports_of(source):
            top = module.split(".")[0]
            if top in AMBIENT_MODULES or (module == "numpy" and name == "random"):
                offences.append(f"{source.name}:{line}: imports {module}")
        for node in source.nodes:
            if isinstance(node, ast.Attribute) and (node.attr in ("now", "utcnow", "today") or _is_chance(node)):
                offences.append(f"{source.name}:{node.lineno}: {ast.unparse(node)}")
    refuse(offences)


def _is_chance(node: ast.Attribute) -> bool:
    return node.attr == "random" and _name_of(node.value) in ("np", "numpy")


def test_the_environment_is_read_in_named_places_only() -> None:
    offences = []
    for source in sources():
        if source.name in MAY_READ_ENVIRONMENT:
            continue
        for node in source.nodes:
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv", "getenvb"):
                offences.append(f"{source.name}:{node.lineno}: reads the environment")
        for module, name, line in imports_of(source):
            if module == "os" and name in ("environ", "getenv"):
                offences.append(f"{source.name}:{line}: reads the environment")
    for name, text in native_sources():
        if "getenv" in text and name != "kernels/cpu/isa.cpp":
            offences.append(f"{name}: reads the environment")
    refuse(offences)


def test_modules_hold_no_state() -> None:
    refuse([offence for source in sources() for offence in _state_of(source)])


MUTABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
MUTATORS = {"append", "extend", "insert", "update", "setdefault", "pop", "popitem", "clear", "add", "remove", "discard"}
# Calls whose results hold no state of ours: types, compiled patterns and formats, the tables of routes and commands.
STATELESS_CALLS = {"getLogger", "TypeVar", "NewType", "Typer", "APIRouter"}


def _state_of(source: Source) -> Iterator[str]:
    constants = set()
    for node in source.tree.body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            if not isinstance(target, ast.Name) or target.id == "__all__" or node.value is None:
                continue
            if target.id.lstrip("_").isupper():
                constants.add(target.id)
            elif isinstance(node.value, MUTABLE):
                yield f"{source.name}:{node.lineno}: {target.id} is a mutable at module level"
            elif _builds(node.value) and not target.id.lstrip("_")[:1].isupper():
                yield f"{source.name}:{node.lineno}: {target.id} is built at module level"
    yield from _changes_of(source, constants)


def _changes_of(source: Source, constants: set[str]) -> Iterator[str]:
    for node in source.nodes:
        if isinstance(node, ast.Global):
            yield f"{source.name}:{node.lineno}: global {', '.join(node.names)}"
        changed = None
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, (ast.Store, ast.Del)):
            changed = _name_of(node.value)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
            changed = _name_of(node.func.value)
        if changed in constants:
            yield f"{source.name}:{node.lineno}: {changed} is changed"


def _builds(value: ast.expr) -> bool:
    if not isinstance(value, ast.Call):
        return False
    called = value.func.attr if isinstance(value.func, ast.Attribute) else _name_of(value.func)
    return called not in STATELESS_CALLS


def _name_of(node: ast.expr) -> str | None:
    return node.id if isinstance(node, ast.Name) else None


def test_no_error_is_swallowed() -> None:
    offences = []
    for source in sources():
        for node in source.nodes:
            if isinstance(node, ast.ExceptHandler):
                if all(isinstance(line, ast.Pass) for line in node.body):
                    offences.append(f"{source.name}:{node.lineno}: except: pass")
                if node.type is None:
                    offences.append(f"{source.name}:{node.lineno}: bare except")
    refuse(offences)


def test_what_people_send_is_never_checked_by_assert() -> None:
    offences = []
    for source in sources():
        if source.room in EDGES or source.name in (
            "request.py",
            "sampling_params.py",
            "settings.py",
            "model_spec.py",
            "typed_json.py",
        ):
            for node in source.nodes:
                if isinstance(node, ast.Assert) and not _narrows_own_type(node.test):
                    offences.append(f"{source.name}:{node.lineno}: assert")
    refuse(offences)


EDGES = {"server", "cli", "text", "weights"}


def _narrows_own_type(test: ast.expr) -> bool:
    """`assert isinstance(self.x, X)` and `assert self.x is not None` tell a type checker what we know of ourselves."""
    text = ast.unparse(test)
    return text.startswith("isinstance(self.") or bool(re.fullmatch(r"self\.\w+ is not None", text))


def test_model_files_are_pictures() -> None:
    sizes = {source.name: source.text.count("\n") for source in sources() if source.room == "models"}
    refuse([f"{name}: {size} lines, at most 150" for name, size in sizes.items() if size > 150])


def test_there_is_no_drawer_for_odds_and_ends() -> None:
    bad = {"utils", "util", "helpers", "misc", "common", "tools", "base"}
    refuse([source.name for source in sources() if source.path.stem in bad])


def test_the_project_speaks_of_itself_alone() -> None:
    offences = []
    texts = [(source.name, source.text) for source in sources()] + list(native_sources())
    for path in [*ROOT.glob("docs/**/*.md"), ROOT / "README.md", ROOT / "Makefile", ROOT / "pyproject.toml"]:
        texts.append((path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")))
    for name, text in texts:
        for number, line in enumerate(text.splitlines(), 1):
            if found := FORBIDDEN_TEXT.search(line):
                offences.append(f"{name}:{number}: speaks of {found.group()!r}")
    refuse(offences)


@pytest.mark.parametrize("room", ["cache", "scheduling", "structured", "text"])
def test_the_two_wings_never_meet(room: str) -> None:
    """Said twice on purpose: the table above may be edited, this may not."""
    computing = {"models", "layers", "quant", "sampling", "weights", "ops", "kernels"}
    assert not ROOMS[room].may_import & computing
    for other in computing:
        assert room not in ROOMS[other].may_import
    assert "numpy" not in ROOMS[room].may_use
