"""Memory, standard streams and clocks that are not as one would like.

Knows: cgroups, limits, descriptors. Does not know: what the server does with them.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from chaos import asking
from chaos.asking import Load, complete, during, told
from chaos.case import Case, Skipped, check, soon
from chaos.served import DidNotStart, Served, command, descendants, is_alive, send, served

QUIET = ("--log-level", "warning")
CGROUPS = Path("/sys/fs/cgroup")
TIGHT_BYTES = 420 * 2**20
JUMPS = """
import random, time
_wall, _wall_ns, _jump = time.time, time.time_ns, random.Random(1)
time.time = lambda: _wall() + _jump.choice((-86400.0, 0.0, 3600.0, 10**9))
time.time_ns = lambda: _wall_ns() + _jump.choice((-86400 * 10**9, 0, 10**18))
"""


@contextlib.contextmanager
def memory_group(limit_bytes: int) -> Iterator[tuple[Callable[[], None], Path]]:
    """A cgroup with so much memory: what puts the calling process into it, and its folder. Raises `Skipped`."""
    v1 = CGROUPS / "memory"
    base, name = (v1, "memory.limit_in_bytes") if v1.is_dir() else (CGROUPS, "memory.max")
    folder = base / f"quire-chaos-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / name).write_text(str(limit_bytes))
    except OSError as problem:
        raise Skipped(f"no memory cgroup may be made: {problem}") from None
    try:
        yield lambda: (folder / "cgroup.procs").write_text(str(os.getpid())), folder  # type: ignore[misc]
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()


def little_memory() -> str:
    """A cgroup with far less memory than the machine: the plan has to fit it, and hold under load."""
    with memory_group(TIGHT_BYTES) as (enter, folder), served(*QUIET, before=enter) as server:
        engine = server.engine
        streams, _ = during(server.port, Load(num_streams=16), lambda: None)
        check(not streams.harmed, told(streams))
        check(server.engine == engine and server.process.poll() is None, "a process ended")
        peak = _peak(folder)
        return f"{told(streams)}; {TIGHT_BYTES >> 20} MiB allowed, {peak} at most used"


def _peak(folder: Path) -> str:
    for name in ("memory.max_usage_in_bytes", "memory.peak"):
        if (folder / name).exists():
            return f"{int((folder / name).read_text()) / 2**20:.0f} MiB"
    return "unknown"


def too_little_memory() -> str:
    """A cgroup that cannot hold the model: an end that says so, before or when the system ends the engine."""
    with memory_group(90 * 2**20) as (enter, _):
        try:
            with served(*QUIET, before=enter, start_s=40.0) as server:
                status, _ = complete(server.port)
                return f"it serves all the same: {status}"
        except DidNotStart as problem:
            said = str(problem)
            check("no address after" not in said, "it hangs")
            check("Traceback" not in said, said[-300:])
            return f"{said.strip().splitlines()[-1][-200:]}"


def no_address_space() -> str:
    """RLIMIT_AS below what the KV cache needs."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (500 * 2**20,) * 2)

    try:
        with served(*QUIET, before=limit, start_s=40.0, env={"MALLOC_ARENA_MAX": "1"}) as server:
            streams, _ = during(server.port, Load(num_streams=8), lambda: None)
            check(not streams.harmed, told(streams))
            check(server.process.poll() is None, "the front ended")
            return f"the plan fits: {told(streams)}"
    except DidNotStart as problem:
        said = str(problem)
        check("no address after" not in said, "it hangs")
        check("exit code 2" in said and "memory" in said and "Traceback" not in said, said[-400:])
        return said.strip().splitlines()[-1][-200:]


@contextlib.contextmanager
def on_known_port(stdin: object, stderr: object, *options: str) -> Iterator[Served]:
    """A server whose address is not read from its stderr."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = command(*options)
    argv[argv.index("--port") + 1] = str(port)
    process = subprocess.Popen(argv, stdin=stdin, stdout=subprocess.DEVNULL, stderr=stderr)  # type: ignore[call-overload]
    family: set[int] = set()
    try:
        soon(lambda: asking.get(port, "/health", 1.0) == 200 or process.poll() is not None, 60.0, "it serves")
        check(process.poll() is None, f"exit code {process.returncode}")
        family = descendants(process.pid)
        yield Served(process, Path(os.devnull), port)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for pid in family:
            send(pid, signal.SIGKILL)


def closed_streams() -> str:
    """stdin, stdout and stderr are closed, as some daemons start their children."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = command(*QUIET)
    argv[argv.index("--port") + 1] = str(port)
    shell = " ".join(argv) + " <&- >&- 2>&-"
    process = subprocess.Popen(["sh", "-c", f"exec {shell}"])
    try:
        soon(lambda: asking.get(port, "/health", 1.0) == 200 or process.poll() is not None, 60.0, "it serves")
        check(process.poll() is None, f"exit code {process.returncode}")
        status, _ = complete(port)
        form = complete(port, structured_outputs={"choice": ["yes", "no"]})[0]
        check(status == 200, f"a request: {status}")
        check(form == 200, f"a constrained request: {form}")
        engine = next(iter(descendants(process.pid)), None)
        process.send_signal(signal.SIGTERM)
        code = process.wait(20)
        check(code == 0, f"exit code {code} after SIGTERM")
        soon(lambda: not is_alive(engine), 5.0, "no process stays")
        return "serves, constrained answers too; exit code 0 after SIGTERM"
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def full_stderr() -> str:
    """stderr is a pipe that nobody reads: a log that is full must not stop the server."""
    read_end, write_end = os.pipe()
    try:
        with on_known_port(subprocess.DEVNULL, write_end, "--log-level", "info") as server:
            streams, worst_s = during(
                server.port, Load(num_streams=4, num_tokens=60), lambda: _ask_often(server.port, 900)
            )
            check(not streams.harmed, told(streams))
            check(complete(server.port, 5.0)[0] == 200, "no answer once the pipe is full")
            os.set_blocking(read_end, False)
            num_bytes = _drain(read_end)
            check(num_bytes > 50_000, f"the pipe was not full: {num_bytes} bytes")
            complete(server.port)
            check(complete(server.port, 5.0)[0] == 200, "no answer after the pipe was read")
            tail = os.read(read_end, 2**20).decode(errors="replace")
            check("lost" in tail, f"that lines were lost is not said: {tail[-200:]}")
            code = server.stop()
            check(code == 0, f"exit code {code} after SIGTERM")
            told_of = f"{num_bytes >> 10} KiB in the pipe, the longest pause {worst_s:.2f} s, losses are told"
            return f"{told(streams)}; {told_of}"
    finally:
        os.close(read_end)
        os.close(write_end)


def _ask_often(port: int, num: int) -> None:
    for _ in range(num):
        asking.get(port, "/version", 5.0)


def _drain(descriptor: int) -> int:
    num_bytes = 0
    with contextlib.suppress(BlockingIOError):
        while data := os.read(descriptor, 2**16):
            num_bytes += len(data)
    return num_bytes


def reader_of_stderr_gone() -> str:
    """`quire serve 2>&1 | head -3`: whoever read stderr has left."""
    read_end, write_end = os.pipe()
    with on_known_port(subprocess.DEVNULL, write_end, "--log-level", "info") as server:
        os.close(write_end)
        os.close(read_end)
        statuses = {complete(server.port)[0] for _ in range(3)} | {complete(server.port, n=0)[0]}
        check(statuses == {200, 400}, f"statuses {statuses}")
        engine = server.engine
        code = server.stop()
        check(code == 0, f"exit code {code} after SIGTERM")
        soon(lambda: not is_alive(engine), 5.0, "no process stays")
        return "answers as before; exit code 0 after SIGTERM"


def clock_jumps() -> str:
    """The wall clock jumps by days and years at every reading; only the steady clock may count."""
    with tempfile.TemporaryDirectory(prefix="quire-chaos-") as name:
        (Path(name) / "sitecustomize.py").write_text(JUMPS)
        path = os.pathsep.join(filter(None, [name, os.environ.get("PYTHONPATH", "")]))
        with served("--log-level", "info", env={"PYTHONPATH": path}) as server:
            first = server.engine
            begin = time.monotonic()
            streams, worst_s = during(server.port, Load(after_s=4.0), lambda: None)
            check(not streams.harmed, told(streams))
            check(server.engine == first, "the engine was started anew")
            status, _ = complete(server.port, structured_outputs={"choice": ["yes", "no"]})
            check(status == 200, f"a constrained request: {status}")
            times = [float(each) for each in re.findall(r"total_s=([0-9.-]+)", server.said)]
            spent = time.monotonic() - begin
            check(times and all(0 <= each < spent for each in times), f"durations in the log: {sorted(times)[-3:]}")
            return f"{told(streams)}; the longest pause {worst_s:.2f} s; {len(times)} durations in the log are sane"


CASES = (
    Case("little memory", "the plan fits the cgroup and holds under load", little_memory),
    Case("too little memory", "an end with a reason, never a hang", too_little_memory),
    Case("no address space", "the plan fits and holds, or an end with a reason", no_address_space),
    Case("stdin, stdout, stderr closed", "serves, and leaves in order", closed_streams),
    Case("stderr full", "requests go on; lines are lost, and that is told", full_stderr),
    Case("reader of stderr gone", "requests go on; leaves in order", reader_of_stderr_gone),
    Case("clock jumps", "no duration and no timeout depends on the wall clock", clock_jumps),
)
