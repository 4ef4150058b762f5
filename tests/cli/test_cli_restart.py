"""Restarting `quire serve` under way: a successor on the same socket, sockets handed down, and what goes wrong."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from test_cli_serve import PATIENCE_S, command, environment, fail, is_alive, needs_model, served

from quire.cli.listener import adopt, handed_down
from quire.cli.resolve import BUNDLED
from quire.cli.successor import check_ready_fd, with_options
from quire.errors import InvalidSetting

ASKED = {"prompt": "Once upon a time", "max_tokens": 200, "ignore_eos": True, "temperature": 0, "stream": True}
ACTIVATED = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""
VERSION = b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n"
QUICK = ("--threads", "1", "--drain-grace", "0")


def wait_until(is_so: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def told_version(sock: socket.socket) -> bytes:
    sock.sendall(VERSION)
    said = b""
    while not said.endswith(b"}"):
        part = sock.recv(65536)
        assert part, said
        said += part
    return said


def end_process(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not is_alive(pid))


@needs_model
def test_a_successor_takes_over_the_socket_while_streams_go_on(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with served(*QUICK, "--request-log", str(log)) as server, httpx.Client(timeout=60) as client:
        url = server.url + "/completions"
        whole = client.post(url, json={**ASKED, "stream": False}).json()["choices"][0]["text"]
        successor = None
        try:
            with client.stream("POST", url, json={**ASKED, "max_tokens": 3500}) as stream:
                lines = stream.iter_lines()
                next(lines)
                server.process.send_signal(signal.SIGUSR2)
                successor = int(server.wait_for(r"^restart +process (\d+) starts").group(1))
                server.wait_for(f"^leaving .*process {successor} answers: the successor takes new requests")
                assert server.process.poll() is None
                again = client.post(url, json={**ASKED, "stream": False})
                assert again.json()["choices"][0]["text"] == whole
                assert list(lines)[-2:] == ["data: [DONE]", ""]
            assert server.process.wait(PATIENCE_S) == 0
            server.wait_for("^ended    every answer was whole")
            assert client.post(url, json={**ASKED, "stream": False}).json()["choices"][0]["text"] == whole
            assert "Traceback" not in "".join(server.lines)
            wait_until(lambda: log.read_bytes().count(b"\n") == 4)
        finally:
            if successor is not None:
                end_process(successor)


@needs_model
def test_connections_that_are_kept_go_to_the_successor() -> None:
    with served(*QUICK) as server:
        host, port = server.url.removeprefix("http://").removesuffix("/v1").split(":")
        silent, fresh = (socket.create_connection((host, int(port)), timeout=PATIENCE_S) for _ in range(2))
        assert b"200 OK" in told_version(silent)
        server.process.send_signal(signal.SIGUSR2)
        successor = int(server.wait_for(r"^restart +process (\d+) starts").group(1))
        try:
            assert server.process.wait(PATIENCE_S) == 0
            for sock in (silent, fresh):
                assert b"connection: close" not in told_version(sock).lower()
                sock.close()
        finally:
            end_process(successor)


@needs_model
def test_a_successor_that_cannot_start_leaves_the_old_one_serving(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(BUNDLED, folder)
    with served(*QUICK, str(folder), "--request-log", str(tmp_path / "log.jsonl")) as server:
        config = (folder / "config.json").read_text()
        (folder / "config.json").write_text("{")
        server.process.send_signal(signal.SIGUSR2)
        server.wait_for(
            "^restart  failed: the successor ended with exit code 2 before it answered; this server goes on"
        )
        assert httpx.get(server.url.removesuffix("/v1") + "/health").status_code == 200
        (folder / "config.json").write_text(config)
        assert server.end(signal.SIGTERM) == 0
        assert "leaving  SIGTERM: not ready; no new requests, 0 requests open" in "".join(server.lines)


@needs_model
@pytest.mark.parametrize("how", ["option", "systemd"])
def test_an_inherited_socket_is_served_and_survives(how: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        reads, writes = os.pipe()
        fd = listener.fileno()
        if how == "option":
            words, fds = command("serve", *QUICK, "--listen-fd", str(fd), "--ready-fd", str(writes)), (fd, writes)
        else:  # the socket becomes descriptor 3 of a process that knows its own number
            words = [sys.executable, "-c", ACTIVATED, str(fd), *command("serve", *QUICK, "--ready-fd", str(writes))]
            fds = (fd, writes)
        with subprocess.Popen(words, pass_fds=fds, env=environment(), stderr=subprocess.PIPE, text=True) as process:
            os.close(writes)
            try:
                with os.fdopen(reads, "rb") as ready:
                    assert ready.read() == b"ready\n"
                assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
                process.send_signal(signal.SIGTERM)
                _, said = process.communicate(timeout=PATIENCE_S)
            finally:
                process.kill()
        assert process.returncode == 0
        assert f"at http://127.0.0.1:{port}/v1" in said
        with socket.create_connection(("127.0.0.1", port), timeout=5):  # it still listens: whoever opened it holds it
            pass


def test_descriptors_that_are_no_sockets_are_one_sentence(tmp_path: Path) -> None:
    code, said = fail("serve", "--listen-fd", "77")
    assert code == 2
    assert "the descriptor to listen on is no socket" in said
    assert said.count("\n") == 1
    code, said = fail("serve", "--port", "0", "--ready-fd", "77")
    assert code == 2
    assert "--ready-fd is no open descriptor" in said


@pytest.mark.parametrize("kind", ["udp", "unix", "unbound"])
def test_other_kinds_of_sockets_are_refused(kind: str) -> None:
    family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) as other:
        with pytest.raises(InvalidSetting):
            adopt(other.fileno())
        assert other.getsockname() is not None, "it is not ours to close"


def test_only_sockets_meant_for_this_process_are_taken() -> None:
    assert handed_down({}, 7) is None
    assert handed_down({"LISTEN_PID": "8", "LISTEN_FDS": "1"}, 7) is None
    assert handed_down({"LISTEN_PID": "7", "LISTEN_FDS": "1"}, 7) == 3
    for number in ("0", "2", "x"):
        with pytest.raises(InvalidSetting):
            handed_down({"LISTEN_PID": "7", "LISTEN_FDS": number}, 7)
    check_ready_fd(None)


def test_a_successor_is_started_with_the_same_words() -> None:
    first = with_options(
        ["python", "-m", "quire", "serve", "model", "--port", "0"], {"--listen-fd": "5", "--ready-fd": "6"}
    )
    assert first == ["python", "-m", "quire", "serve", "--listen-fd=5", "--ready-fd=6", "model", "--port", "0"]
    assert with_options(first, {"--listen-fd": "7"})[4:] == ["--listen-fd=7", "--ready-fd=6", "model", "--port", "0"]
    assert with_options(["quire", "serve", "--ready-fd", "9", "m"], {"--ready-fd": "4"}) == [
        "quire",
        "serve",
        "--ready-fd=4",
        "m",
    ]


@needs_model
def test_a_stop_while_a_successor_starts_stops_both() -> None:
    with served(*QUICK) as server:
        server.process.send_signal(signal.SIGUSR2)
        successor = int(server.wait_for(r"^restart +process (\d+) starts").group(1))
        assert server.end(signal.SIGTERM) == 0
        wait_until(lambda: not is_alive(successor))
