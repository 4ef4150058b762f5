"""What no line of the package may do, as a check of a syntax tree, with the exceptions and their reasons.

Knows: modules, calls and arguments that can execute what they read, or reach out. Does not know: what a line is for.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

# What can execute what it reads, or run a program: nobody imports it.
EXECUTING_MODULES = {
    "pickle", "_pickle", "cPickle", "cloudpickle", "dill", "jsonpickle", "marshal", "shelve", "dbm", "joblib", "yaml",
    "ruamel", "copyreg", "code", "codeop", "runpy", "imp", "zipimport", "pty", "pdb", "bdb", "multiprocessing",
    "concurrent.futures.process", "xmlrpc", "tarfile", "zipfile", "wsgiref.simple_server", "cffi", "logging.config",
    "quire.kernels.cpu._cpu.pickle",
}  # fmt: skip
# HTTP clients: the server fetches nothing. The command line resolves hub ids and drives servers under test.
CLIENTS = {
    "httpx", "httpcore", "requests", "urllib.request", "urllib3", "http.client", "aiohttp", "pycurl", "ftplib",
    "smtplib", "telnetlib", "imaplib", "poplib", "nntplib", "huggingface_hub", "websockets", "socketserver",
    "http.server", "grpc",
}  # fmt: skip
EXECUTING_NAMES = {"eval", "exec", "compile", "__import__", "breakpoint", "input", "execfile"}
EXECUTING_METHODS = {
    ("os", "system"), ("os", "popen"), ("os", "execv"), ("os", "execve"), ("os", "execl"), ("os", "execvp"),
    ("os", "execlp"), ("os", "spawnv"), ("os", "spawnl"), ("os", "posix_spawn"), ("os", "posix_spawnp"), ("os", "fork"),
    ("os", "forkpty"), ("torch", "load"), ("jit", "load"), ("hub", "load"), ("np", "load"), ("numpy", "load"),
    ("np", "fromfile"), ("np", "memmap"), ("np", "fromregex"), ("np", "genfromtxt"), ("yaml", "load"),
    ("yaml", "unsafe_load"), ("shutil", "unpack_archive"), ("subprocess", "getoutput"),
    ("tempfile", "mktemp"), ("ssl", "_create_unverified_context"), ("builtins", "eval"), ("builtins", "exec"),
    ("sys", "settrace"), ("ctypes", "CDLL"), ("ctypes", "PyDLL"), ("cdll", "LoadLibrary"), ("ctypes", "string_at"),
}  # fmt: skip
# Named as types they do no harm; made, they run what they are given outside of the sandbox.
MADE = {("jinja2", "Environment"), ("jinja2", "Template"), ("types", "CodeType"), ("types", "FunctionType")}
ARGUMENTS = {"shell": True, "trust_remote_code": True, "allow_pickle": True, "verify": False, "weights_only": False}
UNPICKLING = {"__reduce__", "__reduce_ex__", "__setstate__", "__getnewargs__", "find_class", "persistent_load"}

# (file, what) -> why it may. A reason that is no longer needed is an offence too.
ALLOWED: dict[tuple[str, str], str] = {
    ("structured/matcher.py", "imports ctypes"): "the address of a caller's row of the mask, which llguidance writes",
    ("accelerator.py", "imports ctypes"): "the driver's own library tells which GPUs there are; torch costs seconds",
    ("accelerator.py", "uses ctypes.CDLL"): "the same: a constant name, loaded where --device asks for it",
    ("engine/orphan.py", "imports ctypes"): "prctl: the kernel ends an engine whose front has died",
    ("engine/orphan.py", "uses ctypes.CDLL"): "the same: this process's own C library",
    ("engine/heap.py", "imports ctypes"): "malloc_trim: freed memory goes back to the system",
    ("engine/heap.py", "uses ctypes.CDLL"): "the same: this process's own C library",
    ("kernels/vendor/fits.py", "calls import_module"): "FlashInfer's list of its kernels, by a constant name",
    ("kernels/vendor/flashinfer.py", "calls import_module"): "FlashInfer, by a constant name, where a GPU may use it",
    ("ops/open_device.py", "calls import_module"): "torch and its kernels, by constant names, where they are asked for",
    ("ops/torch_device.py", "calls import_module"): "a kernel's file, by a table of ours from op to module",
    ("cli/chat.py", "calls input"): "a person's line at a terminal; Python 3's input evaluates nothing",
    ("engine/grammar_trial.py", "uses os.fork"): "a trial compiles somebody's grammar in a process that may be ended",
    ("models/__init__.py", "calls import_module"): "a network's file, by a table of ours from model_type to module",
    ("quant/__init__.py", "calls import_module"): "a weight format's file, by a table of ours from its name to module",
}


def offences(name: str, tree: ast.AST, room: str) -> Iterator[tuple[str, int]]:
    """(what, line) of everything in `tree` that is not allowed anywhere, or not in `room`."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from _imports(node, room)
        elif isinstance(node, ast.Call):
            yield from _calls(node)
        elif isinstance(node, ast.Attribute):
            if (_last(node.value), node.attr) in EXECUTING_METHODS:
                yield f"uses {_last(node.value)}.{node.attr}", node.lineno
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name in UNPICKLING:
            yield f"defines {node.name}", node.lineno


def _imports(node: ast.Import | ast.ImportFrom, room: str) -> Iterator[tuple[str, int]]:
    if isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
    else:
        modules = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    for module in modules:
        if _within(module, EXECUTING_MODULES):
            yield f"imports {module}", node.lineno
        if _within(module, {"ctypes"}):
            yield "imports ctypes", node.lineno
        if room != "cli" and _within(module, CLIENTS):
            yield f"imports {module}", node.lineno
    if isinstance(node, ast.ImportFrom):
        for alias in node.names:
            if ((node.module or "").split(".")[-1], alias.name) in EXECUTING_METHODS | MADE:
                yield f"uses {node.module}.{alias.name}", node.lineno


def _calls(node: ast.Call) -> Iterator[tuple[str, int]]:
    name = node.func.id if isinstance(node.func, ast.Name) else _last(node.func)
    if isinstance(node.func, ast.Name) and name in EXECUTING_NAMES:
        yield f"calls {name}", node.lineno
    if isinstance(node.func, ast.Attribute) and (_last(node.func.value), name) in MADE:
        yield f"makes {name}", node.lineno
    if name == "import_module":
        yield "calls import_module", node.lineno
    for keyword in node.keywords:
        value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
        if keyword.arg in ARGUMENTS and value is ARGUMENTS[keyword.arg]:
            yield f"passes {keyword.arg}={value}", node.lineno


def _within(module: str, names: set[str]) -> bool:
    return any(module == name or module.startswith(name + ".") for name in names)


def _last(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else None
