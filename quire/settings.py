"""What a person may ask for: one field is one option, one flag, one line of documentation.

Knows: options, their defaults and meanings. Does not know: files, the environment, the hardware, or what becomes of
them (`plan.py` turns every "auto" into a value).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from math import inf
from typing import Any

from quire.errors import InvalidSetting
from quire.precision import GROUP_SIZES

DEVICES = ("auto", "cpu", "cuda", "torch:cpu", "triton:cpu")
TOOL_FORMATS = (
    "auto", "none", "harmony", "qwen3_coder", "glm", "minimax", "deepseek_v3", "deepseek_v31", "kimi_k2", "mistral",
    "mistral_list", "granite", "nemotron", "cohere", "gemma4", "lfm2", "hermes", "llama3", "pythonic",
)  # fmt: skip
REASONING_FORMATS = (
    "auto", "none", "harmony", "think_response", "think", "brackets", "gemma_channel", "seed", "cohere_thinking",
)  # fmt: skip


def option(default: Any, help: str, *, choices: tuple[str, ...] = (), secret: bool = False) -> Any:
    """A dataclass field that carries its own documentation; `--its-name` is the flag."""
    return field(default=default, metadata={"help": help, "choices": choices, "secret": secret})


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What the engine may be asked for. None or "auto" lets the plan decide."""

    device: str = option(
        "auto",
        "Where the model is computed. auto is cuda where there is a GPU and the gpu extra is installed, else cpu; what "
        "is asked for is never replaced. torch:cpu and triton:cpu run the GPU's code on the CPU, to test it.",
        choices=DEVICES,
    )
    gpu_memory_utilization: float = option(
        0.92, "Share of the GPU's memory that weights, activations and the KV cache may take together."
    )
    batch_invariant: bool = option(
        False,
        "On a GPU: compute so that no answer depends on what is computed beside it (--batch-invariant; slower). On the "
        "CPU that always holds.",
    )
    enforce_eager: bool = option(
        False,
        "On a GPU: launch every kernel from Python instead of replaying recorded steps (--enforce-eager; slower, and "
        "saves its memory).",
    )
    attention_backend: str = option(
        "auto",
        "On a GPU: who computes attention. auto is FlashInfer where it is installed, compiled and faster, as timed at "
        "start for tokens, prompts and both; else quire's own kernels. triton is quire's own; flashinfer insists, and "
        "may compile for minutes at its first start. --batch-invariant takes quire's own.",
        choices=("auto", "triton", "flashinfer"),
    )
    dtype: str = option(
        "auto",
        "Number format of weights and KV: bfloat16, float16 (on a GPU), or float32 for exact comparison. auto is "
        "bfloat16.",
        choices=("auto", "bfloat16", "float32", "float16"),
    )
    quantization: str = option(
        "none",
        "Weight format to quantize to while loading a bf16, fp16 or fp32 checkpoint; fp8 on a GPU.",
        choices=("none", "int8", "int4", "fp8"),
    )
    quantization_group_size: int | None = option(
        None,
        "Inputs of a layer that share a scale: 32, 64 or 128, or 0 for one scale a row."
        " Default: 0 for int8, 32 for int4.",
    )
    head_quantization: str = option(
        "auto",
        "Weight format of the embedding and the head. auto is none without --quantization, fp8 beside fp8, else int8;"
        " beside int4 on the CPU, for vocabularies of 32,768 and more, int4x2: int8 as two planes of 4 bits, one of"
        " which is read for every token, the other for the likeliest alone.",
        choices=("auto", "none", "int8", "int4", "int4x2", "fp8"),
    )
    quantization_cache: str | None = option(
        None, "Folder to keep quantized weights in: the next start reads them instead of the checkpoint's."
    )
    max_model_len: int | None = option(
        None, "Longest sequence in tokens, prompt and answer together. Default: the model's own context, if it fits."
    )
    max_num_seqs: int = option(64, "Most sequences computed in one step.")
    max_num_batched_tokens: int = option(1024, "Most tokens computed in one step; longer prompts are read in chunks.")
    kv_cache_memory_bytes: int | None = option(
        None, "Memory for the KV cache in bytes. Default: a quarter of what is free after the weights, capped at need."
    )
    kv_cache_dtype: str = option(
        "auto",
        "Number format of the KV cache; auto follows dtype. int8 and fp8 have a scale for each token and head; float16 "
        "and fp8 are a GPU's.",
        choices=("auto", "bfloat16", "float32", "int8", "float16", "fp8"),
    )
    block_size: int = option(16, "Tokens per KV block; a multiple of 16.")
    threads: int | None = option(None, "Compute threads. Default: the cores this process may use.")
    scheduling_policy: str = option(
        "fair",
        "Who is served next: fair takes turns between tenants (`user`) by service, fcfs keeps the order of arrival, "
        "priority goes by `priority` and waiting time alone.",
        choices=("fcfs", "fair", "priority"),
    )
    itl_target: float | None = option(
        None,
        "Seconds between two tokens of an answer that reading other prompts may cause, 0 for no bound. Default: five "
        "times a step without prompts, at least 0.1.",
    )
    canary_interval: float | None = option(
        None,
        "Seconds between two looks of an idle engine at itself (a fixed prompt whose outcome is known to the bit, sums "
        "of the weights' bytes), four times that under load; 0 for none. Default: 500 times what they take, at least "
        "10.",
    )
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
    api_key: str | None = option(
        None, "Key that every request but /livez and such must carry as a bearer token.", secret=True
    )
    api_keys: str | None = option(
        None,
        "A TOML file of tenants' keys by hash, with their weights, deadlines and priorities (`quire keys new` writes "
        "entries); read again when it changes, and on SIGHUP.",
    )
    public_prefix: tuple[str, ...] = option(
        (),
        "File of a prompt's beginning that keys may share in the prefix cache: text, or a .json chat body, such as a "
        "system message; may be given several times. Everything else is cached for each key alone.",
    )
    allow_unauthenticated: bool = option(
        False, "Listen on an address that other machines reach although nothing asks them for a key."
    )
    tls_certificate: str | None = option(
        None, "PEM file of the server's certificate and its chain: TLS 1.2 and later. Read again when it changes."
    )
    tls_key: str | None = option(None, "PEM file of the certificate's key. Default: the certificate's own file.")
    tls_client_ca: str | None = option(
        None, "PEM file of authorities: only clients with a certificate of theirs can connect, health checks included."
    )
    chat_template: str | None = option(None, "A Jinja file to use instead of the model's own chat template.")
    tool_format: str = option(
        "auto",
        "How the model writes tool calls. auto reads it off the chat template.",
        choices=TOOL_FORMATS,
    )
    reasoning_format: str = option(
        "auto",
        "How the model marks reasoning. auto reads it off the chat template.",
        choices=REASONING_FORMATS,
    )
    request_log: str | None = option(
        None,
        "File to write every request and answer to, as token ids: users' text, so only its owner may read it. "
        "`quire replay` asks them again.",
    )
    request_log_bytes: int = option(
        256 * 2**20, "Size at which --request-log begins anew; the file before it is kept as FILE.1."
    )
    cors_origins: tuple[str, ...] = option((), "Browser origins that may call the API; may be given several times.")
    api_docs: bool = option(False, "Describe the API at /openapi.json, behind the same key as everything else.")
    unknown_fields: str = option(
        "refuse", "What to do with request fields that nobody knows.", choices=("refuse", "warn")
    )
    log_level: str = option(
        "info", "How much is said on stderr.", choices=("debug", "info", "warning", "error", "critical")
    )
    max_body_bytes: int = option(4 * 2**20, "Largest request body in bytes.")
    max_connections: int = option(
        2048,
        "Most open connections; past them the answer is 503 and a close. Fewer where fewer files may be open.",
    )
    max_connections_per_address: int = option(
        0, "Most open connections of one address; 0: no bound, as is right behind a proxy."
    )
    max_concurrent_per_key: int = option(
        0, "Most requests that each key of --api-keys may have inside; more are refused with 429. 0: no bound."
    )
    max_waiting: int = option(1024, "Most requests waiting for a place; more are refused with 429.")
    max_waiting_tokens: int = option(
        2**20, "Most prompt tokens waiting for a place; more are refused with 429, unless nobody waits."
    )
    max_queue_seconds: float = option(
        60.0, "Longest predicted wait for a place; a request that would wait longer is refused with 429. 0: no bound."
    )
    drain_grace: float = option(
        3.0, "Seconds after SIGTERM in which the server, no longer ready, takes new requests: load balancers look away."
    )
    drain_timeout: float = option(
        20.0, "Seconds that open answers may take after that; what is left is ended with an error that can be retried."
    )
    listen_fd: int | None = option(
        None, "Descriptor of an inherited socket to listen on, in place of --host and --port."
    )
    ready_fd: int | None = option(
        None,
        "Inherited descriptor to write a line to once requests are answered; through a socket connections may follow.",
    )


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
    interval = settings.canary_interval
    if interval is not None and not (interval == 0 or 0.1 <= interval < inf):
        raise InvalidSetting("--canary-interval is no such time", got=interval, allowed="0, or 0.1 seconds or more")
    if settings.itl_target is not None and not 0 <= settings.itl_target < inf:
        raise InvalidSetting("--itl-target is no time", got=settings.itl_target, allowed="0 or more seconds")
    if not 0 < settings.gpu_memory_utilization <= 1:
        raise InvalidSetting(
            "--gpu-memory-utilization is no share", got=settings.gpu_memory_utilization, allowed="above 0, at most 1"
        )
    _check_quantization(settings)
    if settings.block_size % 16 or not 16 <= settings.block_size <= 128:
        raise InvalidSetting(
            "--block-size is not a multiple of 16 in range", got=settings.block_size, allowed="16, 32, ... 128"
        )


def _check_quantization(settings: EngineSettings) -> None:
    """Group sizes that the kernels have, and options that would have no effect."""
    size = settings.quantization_group_size
    if size is not None and (isinstance(size, bool) or size not in (0, *GROUP_SIZES)):
        allowed = ", ".join(str(each) for each in GROUP_SIZES)
        raise InvalidSetting(
            "--quantization-group-size has no such value", got=size, allowed=f"{allowed}, or 0 for one scale a row"
        )
    if size is not None and settings.quantization not in ("int8", "int4"):
        raise InvalidSetting(
            "--quantization-group-size needs --quantization", got=settings.quantization, allowed="int8, int4"
        )
    rounded = ("int8", "int4", "int4x2", "fp8")
    quantized = [name for name in ("quantization", "head_quantization") if getattr(settings, name) in rounded]
    if settings.quantization_cache is not None and not quantized:
        raise InvalidSetting("--quantization-cache needs --quantization", got="none", allowed="int8, int4")
    if settings.dtype == "float32" and quantized:
        raise InvalidSetting(
            f"--dtype float32 and {flag(quantized[0])} contradict each other",
            got=getattr(settings, quantized[0]),
            allowed="none with --dtype float32",
            hint="Activations are float32 in any case; for exact keys and values say --kv-cache-dtype float32.",
        )


def _check_server(settings: ServerSettings) -> None:
    if not 0 <= settings.port <= 65535:
        raise InvalidSetting("--port is out of range", got=settings.port, allowed="0 to 65535")
    _check_key(settings.api_key)
    if settings.public_prefix and settings.api_keys is None:
        raise InvalidSetting(
            "--public-prefix means nothing without --api-keys",
            hint="Without tenants there is one prefix cache, which everyone shares.",
        )
    _at_least("max_body_bytes", settings.max_body_bytes, 1024)
    _at_least("max_connections", settings.max_connections, 1)
    _at_least("max_connections_per_address", settings.max_connections_per_address, 0)
    _at_least("max_concurrent_per_key", settings.max_concurrent_per_key, 0)
    _at_least("max_waiting", settings.max_waiting, 1)
    _at_least("request_log_bytes", settings.request_log_bytes, 2**20)
    _at_least("max_waiting_tokens", settings.max_waiting_tokens, 1)
    for name in ("drain_grace", "drain_timeout"):
        if not 0 <= getattr(settings, name) < inf:
            raise InvalidSetting(f"{flag(name)} is no time", got=getattr(settings, name), allowed="0 or more seconds")
    for name in ("listen_fd", "ready_fd"):
        _at_least(name, getattr(settings, name), 3)
    if not 0 <= settings.max_queue_seconds < inf:
        raise InvalidSetting("--max-queue-seconds is no time", got=settings.max_queue_seconds, allowed="0 or more")


def _check_key(key: str | None) -> None:
    """A key that is empty, or that a header could not carry, would open the door to everyone or to nobody."""
    if key is not None and (not key.isprintable() or not key or key != key.strip()):
        raise InvalidSetting(
            "--api-key is empty or not plain text",
            got=f"{len(key)} characters",
            allowed="printable characters, no white space around them",
            hint="Is a variable empty? `quire keys new NAME` draws a key.",
        )


def _at_least(name: str, value: int | None, low: int) -> None:
    if value is not None and value < low:
        raise InvalidSetting(f"{flag(name)} is too small", got=value, allowed=f"{low} or more")
