"""Models that are cut, lie, or hold what no model holds.

Knows: how a checkpoint can be spoilt. Does not know: how it is read.
"""

from __future__ import annotations

import json
import struct
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chaos import asking
from chaos.asking import complete
from chaos.case import Case, check
from chaos.places import WEIGHTS, fill, header_of, large_model, model, with_header
from chaos.served import DidNotStart, served

QUIET = ("--log-level", "warning")
NAN_BF16 = b"\xc0\x7f"
START_S = 30.0
REFUSED = "exit code 2 within seconds, one sentence that names the file, no traceback"


def refused(spoil: Callable[[Path], object], *words: str) -> Callable[[], str]:
    """A model that must not be served; `words` have to be in what is said."""

    def run() -> str:
        with model() as folder:
            spoil(folder)
            begin = time.monotonic()
            try:
                with served(str(folder), *QUIET, start_s=START_S):
                    check(False, "it is served")
            except DidNotStart as problem:
                said = str(problem)
        check("exit code 2" in said, said[-400:])
        check("Traceback" not in said, said[-400:])
        check(all(word in said for word in words), f"{words} are not all in: {said[-400:]}")
        last = said.strip().splitlines()[-1]
        return f"{time.monotonic() - begin:.1f} s: {last.replace(str(folder), '...')[-160:]}"

    return run


def _cut(share: float) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        path = folder / WEIGHTS
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])

    return spoil


def _first(header: dict[str, Any]) -> str:
    return next(name for name in sorted(header) if name != "__metadata__")


def _entry(**changes: object) -> Callable[[Path], object]:
    """Another description of the first tensor."""

    def spoil(folder: Path) -> None:
        with_header(folder / WEIGHTS, lambda header: header[_first(header)].update(changes))

    return spoil


def _huge_header(folder: Path) -> None:
    path = folder / WEIGHTS
    path.write_bytes(struct.pack("<Q", 2**62) + path.read_bytes()[8:])


def _no_json(folder: Path) -> None:
    path = folder / WEIGHTS
    data = bytearray(path.read_bytes())
    data[8:12] = b"\xff\xfe{["
    path.write_bytes(data)


def _overlap(header: dict[str, Any]) -> None:
    names = [name for name in sorted(header) if name != "__metadata__"]
    same = [name for name in names if header[name]["shape"] == header[names[-1]]["shape"]]
    header[same[0]]["data_offsets"] = header[same[-1]]["data_offsets"]


def _without(header: dict[str, Any]) -> dict[str, Any]:
    """The last tensor of the file left out of the header and the file alike is a truncation; renamed, it is missing."""
    name = _first(header)
    return {(f"other.{key}" if key == name else key): value for key, value in header.items()}


def _missing_shard(folder: Path) -> None:
    header, _ = header_of(folder / WEIGHTS)
    names = [name for name in header if name != "__metadata__"]
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    where = {name: f"model-0000{1 + (place == 0)}-of-00002.safetensors" for place, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


def _config(**changes: object) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return spoil


def _file(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def nan_weights() -> str:
    """A layer of NaN: no answer may be made of it, and nothing may break."""
    with model() as folder:
        name = fill(folder / WEIGHTS, "down_proj", NAN_BF16)
        try:
            with served(str(folder), *QUIET, start_s=START_S) as server:
                found = [complete(server.port) for _ in range(3)]
                streamed = complete(server.port, stream=True)
                check(all(status in (500, 503) for status, _ in found), f"statuses {[status for status, _ in found]}")
                kinds = {answer["error"]["code"] for _, answer in found}
                check("error" in str(streamed[1]), "a stream tells no error")
                check(server.engine is not None and server.process.poll() is None, "a process ended")
                check("Traceback" not in server.said, "a traceback")
                health = asking.get(server.port, "/health")
                return f"{name}: {found[0][0]} {', '.join(map(str, kinds))}, nothing made up; /health {health}"
        except DidNotStart as problem:
            check("Traceback" not in str(problem), str(problem)[-300:])
            return f"not served: {str(problem).strip().splitlines()[-1][-160:]}"


def changed_while_read() -> str:
    """The file is cut short while the engine reads it."""
    with tempfile.TemporaryDirectory(prefix="quire-chaos-") as name:
        folder = Path(name) / "large"
        large_model(folder, 300 * 2**20)
        path, told = folder / WEIGHTS, []

        def cut() -> None:
            end = time.monotonic() + 20
            while time.monotonic() < end and not _is_mapped(path):
                time.sleep(0.002)
            with path.open("r+b") as file:
                file.truncate(10 * 2**20)

        thread = threading.Thread(target=cut)
        thread.start()
        try:
            with served(str(folder), *QUIET, start_s=START_S) as server:
                told.append(f"served, {complete(server.port)[0]}")
        except DidNotStart as problem:
            said = str(problem)
            check("no address after" not in said, "it hangs")
            check("Traceback" not in said, said[-300:])
            told.append(said.strip().splitlines()[-1][-200:].replace(str(folder), "..."))
        finally:
            thread.join()
        return told[0]


def _is_mapped(path: Path) -> bool:
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            if str(path) in maps.read_text():
                return True
        except OSError:
            continue
    return False


SPOILT: tuple[tuple[str, Callable[[Path], object], tuple[str, ...]], ...] = (
    ("cut in its data", _cut(0.6), (WEIGHTS,)),
    ("cut in its header", _cut(0.0001), (WEIGHTS,)),
    ("empty", _cut(0.0), (WEIGHTS,)),
    ("header of 2**62 bytes", _huge_header, (WEIGHTS,)),
    ("header that is no JSON", _no_json, (WEIGHTS,)),
    ("offsets beyond the file", _entry(data_offsets=[0, 2**40]), (WEIGHTS,)),
    ("negative offsets", _entry(data_offsets=[-8, 8]), (WEIGHTS,)),
    ("offsets that overflow", _entry(shape=[2**32, 2**32]), (WEIGHTS,)),
    ("overlapping tensors", lambda folder: with_header(folder / WEIGHTS, _overlap), (WEIGHTS,)),
    ("unknown number format", _entry(dtype="F4_E9"), (WEIGHTS,)),
    ("missing tensor", lambda folder: with_header(folder / WEIGHTS, _without), ()),
    ("missing shard", _missing_shard, ("00002",)),
    ("no weights", lambda folder: (folder / WEIGHTS).unlink(), ()),
    ("other shapes than the config's", _config(hidden_size=512), ()),
    ("more layers than there are", _config(num_hidden_layers=64), ()),
    ("config with huge numbers", _config(hidden_size=2**62), ()),
    ("config with NaN", _file("config.json", '{"model_type": "llama", "rope_theta": NaN}'), ("config",)),
    ("config that is no JSON", _file("config.json", "{"), ("config",)),
    ("tokenizer that is no JSON", _file("tokenizer.json", "{"), ("tokenizer.json",)),
    ("template that does not compile", _file("chat_template.jinja", "{% for %}"), ("template",)),
)

CASES = (
    *[Case(f"checkpoint: {name}", REFUSED, refused(spoil, *words)) for name, spoil, words in SPOILT],
    Case("checkpoint: weights of NaN", "typed errors, no answer, no process ends", nan_weights),
    Case("checkpoint: cut while it is read", "an end with a reason, never a hang", changed_while_read),
)
