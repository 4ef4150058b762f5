"""Flags come from the settings' dataclasses: names, values, refusals."""

from __future__ import annotations

from dataclasses import fields

import pytest
import typer
from typer.testing import CliRunner

from quire.cli.flags import with_settings
from quire.cli.main import Commands, app
from quire.settings import EngineSettings, ServerSettings, flag

PROMISED = """
--host --port --served-model-name --dtype --quantization --quantization-group-size --head-quantization
--quantization-cache --max-model-len --max-num-seqs --max-num-batched-tokens
--kv-cache-memory-bytes --kv-cache-dtype --block-size --threads --api-key --chat-template --revision --cors-origins
--no-prefix-cache --log-level --unknown-fields
"""


class Taken:
    """What a command with all settings was called with."""

    def __init__(self) -> None:
        self.engine = EngineSettings()
        self.server = ServerSettings()
        self.app = typer.Typer(cls=Commands, rich_markup_mode=None)

        @self.app.callback()
        def top() -> None:
            pass

        @self.app.command()
        @with_settings(engine=EngineSettings, server=ServerSettings)
        def take(*, engine: EngineSettings, server: ServerSettings) -> None:
            self.engine, self.server = engine, server

    def run(self, *arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(self.app, ["take", *arguments])
        return result.exit_code, result.output


@pytest.fixture
def taken() -> Taken:
    return Taken()


@pytest.mark.parametrize("name", PROMISED.split())
def test_serve_has_every_promised_flag(name: str) -> None:
    assert name in CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "200"}).output


def test_without_flags_a_command_gets_the_defaults(taken: Taken) -> None:
    assert taken.run() == (0, "")
    assert (taken.engine, taken.server) == (EngineSettings(), ServerSettings())


def test_every_field_can_be_set(taken: Taken) -> None:
    wanted_engine = EngineSettings(
        device="torch:cpu",
        gpu_memory_utilization=0.5,
        batch_invariant=True,
        enforce_eager=True,
        dtype="bfloat16",
        quantization="int4",
        quantization_group_size=64,
        head_quantization="none",
        quantization_cache="kept",
        max_model_len=77,
        max_num_seqs=5,
        max_num_batched_tokens=99,
        kv_cache_memory_bytes=123456,
        kv_cache_dtype="bfloat16",
        block_size=32,
        threads=3,
        scheduling_policy="priority",
        itl_target=0.25,
        canary_interval=7.5,
        prefix_cache=False,
    )
    wanted_server = ServerSettings(
        host="::1",
        port=1,
        served_model_name=("a", "b/c"),
        api_key="k",
        api_keys="keys.toml",
        public_prefix=("system.json", "more.txt"),
        allow_unauthenticated=True,
        tls_certificate="c.pem",
        tls_key="k.pem",
        tls_client_ca="a.pem",
        api_docs=True,
        chat_template="x.jinja",
        request_log="asked.jsonl",
        request_log_bytes=2**21,
        cors_origins=("https://a.example", "https://b.example"),
        unknown_fields="warn",
        log_level="debug",
        max_body_bytes=2048,
        max_connections=17,
        max_connections_per_address=5,
        max_concurrent_per_key=3,
        max_waiting=2,
        max_waiting_tokens=99,
        max_queue_seconds=7.5,
        drain_grace=1.5,
        drain_timeout=2.5,
        listen_fd=3,
        ready_fd=4,
    )
    arguments = []
    for settings in (wanted_engine, wanted_server):
        for entry in fields(settings):
            value = getattr(settings, entry.name)
            if isinstance(value, bool):
                arguments.append(flag(entry.name))
            else:
                for each in value if isinstance(value, tuple) else (value,):
                    arguments += [flag(entry.name), str(each)]
    assert taken.run(*arguments) == (0, "")
    assert (taken.engine, taken.server) == (wanted_engine, wanted_server)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--dtype", "float8"], "--dtype has no such value; got float8; allowed: auto, bfloat16, float32"),
        (["--port", "65536"], "--port is out of range; got 65536; allowed: 0 to 65535"),
        (["--block-size", "24"], "--block-size is not a multiple of 16"),
        (["--threads", "0"], "--threads is too small; got 0; allowed: 1 or more"),
        (["--max-num-seqs", "-1"], "--max-num-seqs is too small"),
        (["--log-level", "loud"], "--log-level has no such value"),
    ],
)
def test_values_that_cannot_be_right_are_refused_in_one_sentence(taken: Taken, arguments: list[str], said: str) -> None:
    code, output = taken.run(*arguments)
    assert code == 2
    assert said in output
    assert output.count("\n") == 1
    assert "Traceback" not in output


@pytest.mark.parametrize("arguments", [["--port", "x"], ["--prot", "1"], ["--threads", "1.5"]])
def test_what_is_no_flag_or_no_number_is_refused(taken: Taken, arguments: list[str]) -> None:
    code, output = taken.run(*arguments)
    assert code == 2
    assert arguments[0] in output


def test_the_version_is_the_packages() -> None:
    from quire import __version__

    assert CliRunner().invoke(app, ["--version"]).output == f"quire {__version__}\n"
