"""`quire keys`, and a server that is started with what it wrote. Knows: processes. Does not know: tenants."""

from __future__ import annotations

import json
import signal
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

import pytest
from test_cli_serve import fail, needs_model, served
from typer.testing import CliRunner

from quire.cli.main import app
from quire.tenancy.keys import Key, hash_of, read_keys


def made(*arguments: str) -> tuple[str, str]:
    """The entry and the key."""
    result = CliRunner().invoke(app, ["keys", "new", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr.splitlines()[-1]


def test_a_new_key_is_shown_once_and_written_as_its_hash(tmp_path: Path) -> None:
    first, key = made("alice", "--weight", "2.5", "--deadline-ms", "800", "--priority", "-3")
    second, other = made("bob")
    assert key.startswith("qk-")
    assert len(key) > 40
    assert key != other
    assert key not in first
    path = tmp_path / "keys.toml"
    path.write_text(first + second)
    assert read_keys(path) == (Key("alice", hash_of(key), 2.5, 800.0, -3), Key("bob", hash_of(other)))


@pytest.mark.parametrize(
    "arguments", [("a b",), ("x", "--weight", "0"), ("x", "--deadline-ms", "0"), ("x", "--priority", "-101")]
)
def test_what_the_file_would_refuse_is_not_made(arguments: tuple[str, ...]) -> None:
    assert CliRunner().invoke(app, ["keys", "new", *arguments]).exit_code == 2


def test_a_server_does_not_start_with_keys_that_it_cannot_read(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text("[keys.a]\nsha256 = 'x'\n")
    code, said = fail("serve", "--api-keys", str(path))
    assert code == 2
    assert "--api-keys: sha256 of a is not a hash" in said


@needs_model
def test_a_server_with_keys_reads_them_again_on_sighup(tmp_path: Path) -> None:
    first, key = made("alice")
    path = tmp_path / "keys.toml"
    path.write_text(first)
    path.chmod(0o644)
    with served("--api-keys", str(path)) as server:
        server.wait_for(r"^keys +1 of ")
        server.wait_for("WARNING .* can be read by everyone")
        assert models(server.url, key) == 200
        assert models(server.url, "other") == 401
        second, other = made("bob")
        path.write_text(second)
        server.process.send_signal(signal.SIGHUP)
        for _ in range(200):
            if models(server.url, other) == 200:
                break
        assert models(server.url, key) == 401
        path.write_text("nonsense")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("WARNING .*the keys stay as they were")
        assert models(server.url, other) == 200


def models(url: str, key: str) -> int:
    request = urllib.request.Request(f"{url}/models", headers={"Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert json.load(answer)["data"]
            return int(answer.status)
    except HTTPError as error:
        return error.code
