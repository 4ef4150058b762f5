"""What a person may ask for: one field is one option, one flag, one line of documentation.

Knows: options, their defaults and meanings. Does not know: files, the environment, the hardware, or what becomes of
them (`plan.py` turns every "auto" into a value).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from quire.errors import InvalidSetting


def option(default: Any, help: str, *, choices: tuple[str, ...] = (), secret: bool = False) -> Any:
    """A dataclass field that carries its own documentation; `--its-name` is the flag."""
    return field(default=default, metadata={"help": help, "choices": choices, "secret": secret})


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What the engine may be asked for. None or "auto" lets the plan decide."""

    dtype: str = option(
        "auto",
        "Number format of weights and KV: bfloat16, or float32 for exact comparison. auto is bfloat16.",
        choices=("auto", "bfloat16", "float32"),
    )
    quantization: str = option("none", "Weight format to quantize to while loading.", choices=("none",))
    max_model_len: int | None = option(
        None, "Longest sequence in tokens, prompt and answer together. Default: the model's own context, if it fits."
    )
    max_num_seqs: int = option(64, "Most sequences computed in one step.")
    max_num_batched_tokens: int = option(1024, "Most tokens computed in one step; longer prompts are read in chunks.")
    kv_cache_memory_bytes: int | None = option(
        None, "Memory for the KV cache in bytes. Default: a quarter of what is free after the weights, capped at need."
    )
    kv_cache_dtype: str = option(
        "auto", "Number format of the KV cache; auto follows dtype.", choices=("auto", "bfloat16", "float32")
    )
    block_size: int = option(16, "Tokens per KV block; a multiple of 16.")
    threads: int | None = option(None, "Compute threads. Default: the cores this process may use.")
    prefix_cache: bool = option(True, "Reuse the KV blocks of shared prompt prefixes (--no-prefix-cache turns it off).")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What the HTTP server may be asked for."""

    host: str = option("127.0.0.1", "Address to listen on. Anything but loopback lets other machines in.")
    port: int = option(8000, "TCP port to listen on; 0 takes a free one.")
    served_model_name: tuple[str, ...] = option(
        (),
        "Name of the model in the API; may be given several times. Default: the folder's name. `default` always works.",
    )
    api_key: str | None = option(None, "Key that every request but /health must carry as a bearer token.", secret=True)
    chat_template: str | None = option(None, "A Jinja file to use instead of the model's own chat template.")
    cors_origins: tuple[str, ...] = option((), "Browser origins that may call the API; may be given several times.")
    unknown_fields: str = option(
        "refuse", "What to do with request fields that nobody knows.", choices=("refuse", "warn")
    )
    log_level: str = option(
        "info", "How much is said on stderr.", choices=("debug", "info", "warning", "error", "critical")
    )
    max_body_bytes: int = option(4 * 2**20, "Largest request body in bytes.")
    max_waiting: int = option(1024, "Most requests waiting for a place; more are refused with 429.")


Settings = EngineSettings | ServerSettings


def check(settings: Settings) -> None:
    """Refuse values that no machine and no model could make right."""
    for entry in fields(settings):
        value = getattr(settings, entry.name)
        choices = entry.metadata["choices"]
        if choices and value not in choices:
            raise InvalidSetting(f"{flag(entry.name)} has no such value", got=value, allowed=", ".join(choices))
    if isinstance(settings, EngineSettings):
        _check_engine(settings)
    else:
        _check_server(settings)


def flag(name: str) -> str:
    """The command line's spelling of a field."""
    return "--no-prefix-cache" if name == "prefix_cache" else "--" + name.replace("_", "-")


def _check_engine(settings: EngineSettings) -> None:
    _at_least("max_model_len", settings.max_model_len, 1)
    _at_least("max_num_seqs", settings.max_num_seqs, 1)
    _at_least("max_num_batched_tokens", settings.max_num_batched_tokens, 1)
    _at_least("kv_cache_memory_bytes", settings.kv_cache_memory_bytes, 1)
    _at_least("threads", settings.threads, 1)
    if settings.block_size % 16 or not 16 <= settings.block_size <= 128:
        raise InvalidSetting(
            "--block-size is not a multiple of 16 in range", got=settings.block_size, allowed="16, 32, ... 128"
        )


def _check_server(settings: ServerSettings) -> None:
    if not 0 <= settings.port <= 65535:
        raise InvalidSetting("--port is out of range", got=settings.port, allowed="0 to 65535")
    _at_least("max_body_bytes", settings.max_body_bytes, 1024)
    _at_least("max_waiting", settings.max_waiting, 1)


def _at_least(name: str, value: int | None, low: int) -> None:
    if value is not None and value < low:
        raise InvalidSetting(f"{flag(name)} is too small", got=value, allowed=f"{low} or more")
