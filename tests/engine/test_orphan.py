"""A front that dies: its engine leaves within a second, also in the middle of a step that lasts for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import faulty_engine
import pytest

from quire.engine.orphan import ORPHANED, watch_pipe

FRONT = """
import asyncio, sys, threading
from quire.engine.process import spawn
from test_supervisor import BUNDLED, request, small_plan

async def serve(client):
    await client.start()
    reading = asyncio.create_task(anext(client.stream(request("r", prompt=(1, 2, {token})))))
    while not client.keeper.link.pulse.read().names:
        await asyncio.sleep(0.01)
    print(client.keeper.link.process.pid, flush=True)
    await reading

if {in_thread}:
    thread = threading.Thread(target=lambda: clients.append(spawn(small_plan(), BUNDLED, module="faulty_engine")))
    clients = []
    thread.start()
    threading.Event().wait(0.5)
    client = clients[0]
else:
    client = spawn(small_plan(), BUNDLED, module="faulty_engine")
asyncio.run(serve(client))
"""


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("in_thread", [False, True], ids=["the kernel tells it", "its pipe tells it"])
def test_the_engine_leaves_within_a_second_of_its_front(in_thread: bool) -> None:
    folder = str(Path(__file__).parent)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([folder, str(Path(folder).parents[1])])}
    code = FRONT.format(token=faulty_engine.HANG, in_thread=in_thread)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) as front:
        assert front.stdout is not None
        engine = int(front.stdout.readline())
        assert state_of(engine) not in ("", "Z")
        front.send_signal(signal.SIGKILL)
        began = time.monotonic()
        while state_of(engine) not in ("", "Z"):
            assert time.monotonic() - began < 5
            time.sleep(0.005)
        assert time.monotonic() - began < 1.5  # 0.5 s in a quiet house


def test_a_pipe_that_is_held_accuses_nobody() -> None:
    read_fd, write_fd = os.pipe()
    left: list[int] = []
    gone = threading.Event()

    def leave(code: int) -> None:
        left.append(code)
        gone.set()

    thread = watch_pipe(read_fd, leave, grace_s=0.0)
    os.write(write_fd, b"a message is no hang-up")
    assert not gone.wait(0.05)
    os.close(write_fd)
    assert gone.wait(5)
    assert left == [ORPHANED]
    thread.join(5)
    os.close(read_fd)
