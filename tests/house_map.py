"""The picture of the house that `test_house.py` holds the sources against, and the sources as syntax trees."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "quire"
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

WORDS = {
    "accelerator",
    "attention_shape",
    "beams",
    "devices",
    "errors",
    "events",
    "form",
    "hardware",
    "limits",
    "model_spec",
    "plan",
    "precision",
    "receipt",
    "request",
    "sampling_params",
    "settings",
    "step",
    "typed_json",
}
OFFLINE = {"llm", "answer", "outputs"}  # files of the porch that turn deltas into text


@dataclass(frozen=True)
class Room:
    """What a room may import: other rooms of ours, and distributions that are not the standard library."""

    ours: str = ""
    others: str = ""

    @property
    def may_import(self) -> set[str]:
        return {"words", *self.ours.split()}

    @property
    def may_use(self) -> set[str]:
        return set(self.others.split())


# The picture of the house. A room may always import itself and the words.
ROOMS = {
    "words": Room(),
    # deciding wing: integers, no arrays
    "cache": Room(),
    "scheduling": Room("cache"),
    "structured": Room("text", "llguidance"),
    "text": Room(others="tokenizers jinja2"),
    # computing wing: arrays, no requests
    "kernels": Room(others="numpy torch triton flashinfer"),
    "ops": Room("kernels", "numpy"),
    "quant": Room("ops", "numpy"),
    "weights": Room(others="numpy"),
    "layers": Room("ops quant weights", "numpy"),
    "models": Room("layers ops quant weights", "numpy"),
    "sampling": Room("ops", "numpy"),
    # hall: joins them
    "runner": Room("models layers ops quant sampling structured", "numpy"),
    "engine": Room("cache scheduling structured text runner models ops weights", "msgspec"),
    "measure": Room("models layers ops quant weights", "numpy"),
    # porch: text, JSON, people
    "observe": Room(others="prometheus_client"),
    "tenancy": Room(),
    "server": Room(
        "engine text structured observe llm tenancy front", "msgspec starlette pydantic pydantic_core uvicorn"
    ),
    "sim": Room("cache scheduling", "matplotlib"),
    "llm": Room("engine text structured runner ops front"),
    "cli": Room(
        "llm server observe engine text sim ops measure tenancy front",
        "typer rich huggingface_hub uvicorn uvloop starlette httpx matplotlib",
    ),
    "front": Room("llm cli sampling"),
}

# Rooms whose results may depend on nothing but their arguments: no clock, no chance, no machine.
PURE = {"words", "cache", "scheduling", "structured", "text", "kernels", "ops", "quant", "layers", "models", "sampling"}
PURE_FILES = {"engine/engine.py", "runner/inputs.py", "runner/runner.py", "runner/fake.py"}
AMBIENT_MODULES = {"time", "random", "secrets", "uuid", "socket", "tempfile", "getpass"}
# The only places that may read the environment, each with its reason.
MAY_READ_ENVIRONMENT = {
    "ops/device.py": "QUIRE_CPU_ISA forces the instruction set",
    "cli/listener.py": "LISTEN_FDS and LISTEN_PID are how systemd hands a socket down",
    "accelerator.py": "CUDA_VISIBLE_DEVICES hides GPUs",
}
# No part of the engine's side ever reaches out: it has no client to do it with.
NETWORK = {"httpx", "requests", "urllib", "http", "socket", "socketserver", "huggingface_hub", "aiohttp", "urllib3"}
MAY_NETWORK = {"cli", "server"}
# Modules that can execute what they read.
EXECUTING = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "yaml", "joblib", "code", "multiprocessing"}
EXECUTING_CALLS = {"eval", "exec", "compile", "__import__"}
EXECUTING_ATTRIBUTES = {("torch", "load"), ("yaml", "load"), ("np", "load"), ("numpy", "load")}
# The GPU extra: these folders alone may name torch, and nobody may import them but each other and the files named here,
# which are loaded only when such a device is asked for.
GPU_ONLY = {"torch", "triton", "flashinfer"}
GPU_FOLDERS = ("kernels/torch/", "kernels/triton/", "kernels/vendor/")
GPU_DOORS = ("ops/torch_device.py", "ops/torch_kv_cache.py")
DEVELOPMENT_ONLY = {"transformers", "safetensors", "pytest", "hypothesis", "openai"}
MAY_START_PROCESSES = {"engine/process.py", "engine/grammar_process.py", "cli/successor.py"}
FORBIDDEN_TEXT = re.compile(r"/work/|/root/|/home/|(?<![\w.])/tmp/|(?i:\bco-authored-by\b)")


@dataclass(frozen=True)
class Source:
    """One Python file of the package."""

    path: Path
    name: str
    text: str
    tree: ast.Module
    nodes: tuple[ast.AST, ...]

    @property
    def room(self) -> str:
        parts = self.name.removesuffix(".py").split("/")
        if len(parts) > 1:
            return parts[0]
        return room_of(parts[0])

    @property
    def is_pure(self) -> bool:
        return (
            self.room in PURE - {"words"}
            or self.name in PURE_FILES
            or self.name in ("request.py", "sampling_params.py", "plan.py")
        )


def room_of(inner: str) -> str:
    """The room of `quire.<inner>`: a folder, a word, one of the files around `LLM`, or the front door."""
    if inner in WORDS:
        return "words"
    if inner in OFFLINE:
        return "llm"
    return inner if inner in ROOMS else "front"


def imports_of(source: Source) -> Iterator[tuple[str, str | None, int]]:
    """(module, name, line) of every import anywhere in the file; name is None for `import module`."""
    for node in source.nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None, node.lineno
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield ("." * node.level) + (node.module or ""), alias.name, node.lineno


@functools.cache
def sources() -> tuple[Source, ...]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text, str(path))
        found.append(Source(path, path.relative_to(PACKAGE).as_posix(), text, tree, tuple(ast.walk(tree))))
    return tuple(found)


@functools.cache
def native_sources() -> tuple[tuple[str, str], ...]:
    found = (path for path in sorted(PACKAGE.rglob("*")) if path.suffix in (".cpp", ".h"))
    return tuple((path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8")) for path in found)


def target_room(module: str, name: str | None) -> str | None:
    """Which room of ours an import reaches; None if it is not ours."""
    parts = module.split(".")
    if parts[0] != "quire":
        return None
    inner = parts[1] if len(parts) > 1 else (name or "")
    return room_of(inner)
