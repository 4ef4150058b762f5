"""Every bound on what a request, a connection or a file may ask of us: the numbers, and the one table that lists them.

A number stands here once; whoever checks it imports it. `table` adds what options and the plan decide. Every row is
checked before the work that it bounds, and `tests/server/test_limit_table.py` sends L, L + 1 and 1000 L of each.

Knows: numbers, units, statuses. Does not know: how anything is counted (the module in `checked` does).
"""

from __future__ import annotations

from dataclasses import dataclass

from quire.settings import ServerSettings, flag

# A connection, and the head of a request.
MAX_HEAD_BYTES = 64 * 1024
MAX_TARGET_BYTES = 8 * 1024
MAX_HEADERS = 100
MAX_PIPELINED = 16  # requests that wait behind one that is answered, on one connection
MAX_PIPELINED_BYTES = 2**20  # of their bodies
HEAD_TIMEOUT_S = 30.0
KEEP_ALIVE_S = 30.0
BODY_TIMEOUT_S = 60.0
SEND_TIMEOUT_S = 120.0
MAX_REQUEST_ID_CHARACTERS = 128  # a longer one is replaced, not refused
BODIES_AT_ONCE = 64  # full-sized bodies that are held at once

# A body.
MAX_JSON_DEPTH = 64
MAX_JSON_VALUES = 2**20
MAX_DIGITS = 4300  # Python's own limit for integers in decimal
MAX_NAME_CHARACTERS = 64  # of an unknown field, as messages and the log repeat it
MAX_USER_CHARACTERS = 1024
MAX_SALT_CHARACTERS = 256

# Prompts.
MAX_PROMPTS = 256
MAX_CHOICES = 1024
MAX_MESSAGES = 4096
MAX_PARTS = 4096
MAX_TOOL_CALLS = 256
MAX_ID_CHARACTERS = 4096  # some gateways hide state in the ids of calls
MAX_TOOLS = 128
MAX_TOOL_NAME_CHARACTERS = 64
MAX_DESCRIPTION_CHARACTERS = 16_384
MAX_TEMPLATE_STEPS = 300_000
MAX_TEMPLATE_CHARACTERS = 32 * 1024 * 1024

# Sampling.
MAX_N = 128
MAX_WIDTH = 64
MAX_LOGPROBS = 20
MAX_STOPS = 16
MAX_STOP_CHARACTERS = 1024
MAX_STOP_TOKEN_IDS = 1024
MAX_LOGIT_BIAS = 1024
MAX_BAD_WORDS = 1024
MAX_BAD_WORD_CHARACTERS = 256
MAX_ALLOWED_TOKEN_IDS = 2**18
MAX_LOGITS_PROCESSORS = 16
MAX_PATTERN_SIZE = 1024
MAX_PATTERN_COUNT = 1024
MAX_THINKING_TOKENS = 2**20

# Forms of answers. The compiler's own limits are in its units (50,000 of lexer fuel are 1 to 4 ms).
MAX_GRAMMAR_BYTES = 2**18
MAX_SCHEMA_DEPTH = 100  # levels of JSON; the compiler itself takes 127
MAX_SCHEMA_VALUES = 50_000
MAX_CHOICE_TEXTS = 4096
MAX_REGEX_CHARACTERS = 2**15
MAX_WHITESPACE_CHARACTERS = 256
MAX_TAGS = 128
MAX_LEXER_STATES = 25_000
MAX_GRAMMAR_SIZE = 500_000
COMPILE_CPU_S = 0.08  # of processor time; of 2,757 real schemas the slowest takes 0.01
COMPILE_WALL_S = 1.2
COMPILE_BYTES = 2**28  # of memory, beside what the vocabulary takes
COMPILE_WAIT_S = 0.5  # before its trial begins: with the trial's own limit 1.7 s
OWNER_COMPILE_S = 0.25  # of processor time, filled up by 0.03 s a second

# What is written down, and what is counted.
MAX_PENDING_ENTRIES = 1024  # answers that wait to be written; more are left out when a disk hangs
MAX_METRIC_SERIES = 4096

# Files.
MAX_CONFIG_BYTES = 64 * 2**20  # the index of the largest sharded checkpoints is a few MB
MAX_TENSOR_HEADER_BYTES = 100_000_000  # the format's own limit
MAX_PACKED_INDEX_BYTES = 64 * 2**20
MAX_KEY_FILE_BYTES = 2**20
MAX_KEYS = 4096  # each is compared with each request's key: under a millisecond


@dataclass(frozen=True, slots=True)
class Limit:
    """One bound. `value` None: no bound, or (`model_tokens`) the model's own.

    `status` is what a request over it is answered with, or None where nothing is answered: the connection is closed,
    the value replaced, the start refused. `code` is OpenAI's machine-readable one. `checked` is the module that does.
    """

    name: str
    value: float | None
    unit: str
    status: int | None
    code: str | None
    checked: str
    option: str | None = None
    note: str = ""

    @property
    def flag(self) -> str:
        """The option that changes it, as it is typed; empty where none does."""
        return "" if self.option is None else flag(self.option)


def table(
    server: ServerSettings | None = None, max_model_len: int | None = None, max_num_seqs: int = 64
) -> tuple[Limit, ...]:
    """Every limit, with the values in effect under `server` and a plan of that context and that many sequences."""
    settings = server or ServerSettings()
    return (
        *_connections(settings),
        *_bodies(settings),
        *_prompts(max_model_len),
        *_sampling(max_num_seqs),
        *_forms(),
        *_queue(settings, max_num_seqs),
        *_kept(settings),
        *_files(),
    )


def max_bodies_bytes(settings: ServerSettings) -> int:
    """Bytes of bodies that all requests together may hold."""
    return BODIES_AT_ONCE * settings.max_body_bytes


def _connections(settings: ServerSettings) -> tuple[Limit, ...]:
    where = "server/protocol.py"
    return (
        Limit("connections", settings.max_connections, "connections", 503, "too_many_connections", where,
              "max_connections", "whoever has sent no request for a second makes way first"),
        Limit("connections_per_address", settings.max_connections_per_address or None, "connections", 503,
              "too_many_connections", where, "max_connections_per_address"),
        Limit("head_bytes", MAX_HEAD_BYTES, "bytes", 431, "head_too_large", where, note="request line and headers"),
        Limit("request_target_bytes", MAX_TARGET_BYTES, "bytes", 414, "target_too_long", where),
        Limit("headers", MAX_HEADERS, "headers", 431, "head_too_large", where),
        Limit("pipelined_requests", MAX_PIPELINED, "requests", None, None, where,
              note="that wait behind one that is answered; the connection is closed"),
        Limit("pipelined_bytes", MAX_PIPELINED_BYTES, "bytes", None, None, where,
              note="of the bodies of those that wait; the connection is closed"),
        Limit("head_seconds", HEAD_TIMEOUT_S, "s", 408, "too_slow", where),
        Limit("idle_seconds", KEEP_ALIVE_S, "s", None, None, "server/serve.py", note="between two requests; closed"),
        Limit("body_seconds", BODY_TIMEOUT_S, "s", 408, "too_slow", "server/access.py"),
        Limit("send_seconds", SEND_TIMEOUT_S, "s", None, None, "server/reply.py",
              note="a reader who takes nothing for that long; the answer ends there"),
        Limit("request_id_characters", MAX_REQUEST_ID_CHARACTERS, "characters", None, None, "server/record.py",
              note="of x-request-id; a longer one is replaced"),
    )  # fmt: skip


def _bodies(settings: ServerSettings) -> tuple[Limit, ...]:
    where = "server/json_body.py"
    return (
        Limit("body_bytes", settings.max_body_bytes, "bytes", 413, "body_too_large", "server/access.py",
              "max_body_bytes", "nothing is decompressed, so decoded bytes and characters are no more"),
        Limit("bodies_bytes", max_bodies_bytes(settings), "bytes", 429, "rate_limit_exceeded", "server/access.py",
              "max_body_bytes", f"held by all requests together: {BODIES_AT_ONCE} of the largest"),
        Limit("json_depth", MAX_JSON_DEPTH, "levels", 400, None, where),
        Limit("json_values", MAX_JSON_VALUES, "values", 400, None, where),
        Limit("number_digits", MAX_DIGITS, "digits", 400, None, where),
        Limit("user_characters", MAX_USER_CHARACTERS, "characters", 400, None, "server/translate.py"),
        Limit("cache_salt_characters", MAX_SALT_CHARACTERS, "characters", 400, None, "server/translate.py"),
    )  # fmt: skip


def _prompts(max_model_len: int | None) -> tuple[Limit, ...]:
    calling, messages, sandbox = "server/calling.py", "server/messages.py", "text/sandbox.py"
    return (
        Limit("model_tokens", max_model_len, "tokens", 400, "context_length_exceeded", "server/translate.py",
              "max_model_len", "prompt and answer together"),
        Limit("prompts", MAX_PROMPTS, "prompts", 400, None, "server/prompts.py"),
        Limit("choices", MAX_CHOICES, "answers", 400, None, "server/translate.py", note="prompts times n"),
        Limit("messages", MAX_MESSAGES, "messages", 400, None, messages),
        Limit("content_parts", MAX_PARTS, "parts", 400, None, messages, note="of one message"),
        Limit("tool_calls", MAX_TOOL_CALLS, "calls", 400, None, messages, note="of one message"),
        Limit("id_characters", MAX_ID_CHARACTERS, "characters", 400, None, messages,
              note="of name, tool_call_id and a call's id"),
        Limit("tools", MAX_TOOLS, "tools", 400, None, calling),
        Limit("tool_name_characters", MAX_TOOL_NAME_CHARACTERS, "characters", 400, None, calling),
        Limit("tool_description_characters", MAX_DESCRIPTION_CHARACTERS, "characters", 400, None, calling),
        Limit("template_steps", MAX_TEMPLATE_STEPS, "steps", 400, None, sandbox, note="loop rounds of a chat template"),
        Limit("template_characters", MAX_TEMPLATE_CHARACTERS, "characters", 400, None, sandbox),
    )  # fmt: skip


def _sampling(max_num_seqs: int) -> tuple[Limit, ...]:
    where = "sampling_params.py"
    return (
        Limit("n", min(MAX_N, max_num_seqs), "answers", 400, None, where, "max_num_seqs", f"never over {MAX_N}"),
        Limit("best_of", min(MAX_N, max_num_seqs), "answers", 400, None, "server/translate.py", "max_num_seqs",
              f"never over {MAX_N}"),
        Limit("beam_width", min(MAX_WIDTH, max_num_seqs), "beams", 400, None, "beams.py", "max_num_seqs",
              f"never over {MAX_WIDTH}"),
        Limit("stop_strings", MAX_STOPS, "strings", 400, None, where),
        Limit("stop_string_characters", MAX_STOP_CHARACTERS, "characters", 400, None, where),
        Limit("stop_token_ids", MAX_STOP_TOKEN_IDS, "ids", 400, None, where),
        Limit("logprobs", MAX_LOGPROBS, "tokens", 400, None, where, note="also top_logprobs"),
        Limit("prompt_logprobs", MAX_LOGPROBS, "tokens", 400, None, where),
        Limit("logit_bias", MAX_LOGIT_BIAS, "entries", 400, None, where),
        Limit("bad_words", MAX_BAD_WORDS, "words", 400, None, where),
        Limit("bad_word_characters", MAX_BAD_WORD_CHARACTERS, "characters", 400, None, where),
        Limit("allowed_token_ids", MAX_ALLOWED_TOKEN_IDS, "ids", 400, None, where),
        Limit("repetition_pattern", MAX_PATTERN_SIZE, "tokens", 400, None, where),
        Limit("repetition_count", MAX_PATTERN_COUNT, "times", 400, None, where),
        Limit("thinking_tokens", MAX_THINKING_TOKENS, "tokens", 400, None, "server/speech.py"),
    )  # fmt: skip


def _forms() -> tuple[Limit, ...]:
    source, schema, trial = "structured/source.py", "structured/schema.py", "engine/grammar_trial.py"
    costly = "grammar_too_costly"
    return (
        Limit("grammar_bytes", MAX_GRAMMAR_BYTES, "bytes", 400, None, source, note="of any form, once it is a grammar"),
        Limit("schema_depth", MAX_SCHEMA_DEPTH, "levels", 400, None, schema,
              note="for one that comes as text; in a body json_depth is met first"),
        Limit("schema_values", MAX_SCHEMA_VALUES, "values", 400, None, schema),
        Limit("choice_texts", MAX_CHOICE_TEXTS, "texts", 400, None, source),
        Limit("regex_characters", MAX_REGEX_CHARACTERS, "characters", 400, None, source),
        Limit("whitespace_characters", MAX_WHITESPACE_CHARACTERS, "characters", 400, None, source,
              note="of whitespace_pattern"),
        Limit("structural_tags", MAX_TAGS, "tags", 400, None, "structured/tags.py"),
        Limit("lexer_states", MAX_LEXER_STATES, "states", 400, "invalid_grammar", "structured/grammar.py"),
        Limit("grammar_size", MAX_GRAMMAR_SIZE, "nodes", 400, "invalid_grammar", "structured/grammar.py"),
        Limit("compile_cpu_seconds", COMPILE_CPU_S, "s", 400, costly, trial),
        Limit("compile_seconds", COMPILE_WALL_S, "s", 400, costly, trial),
        Limit("compile_bytes", COMPILE_BYTES, "bytes", 400, costly, trial, note="beside the vocabulary"),
        Limit("compile_wait_seconds", COMPILE_WAIT_S, "s", 429, "rate_limit_exceeded", "engine/grammar_child.py"),
        Limit("owner_compile_seconds", OWNER_COMPILE_S, "s", 429, "rate_limit_exceeded", "engine/grammar_credit.py",
              note="of processor time, of one key's or user's grammars"),
    )  # fmt: skip


def _queue(settings: ServerSettings, max_num_seqs: int) -> tuple[Limit, ...]:
    busy = "rate_limit_exceeded"
    return (
        Limit("requests_inside", max_num_seqs + settings.max_waiting, "requests", 429, busy, "server/door.py",
              "max_waiting", "waiting and running: --max-waiting and --max-num-seqs; a tenant below his part may pass"),
        Limit("requests_per_key", settings.max_concurrent_per_key or None, "requests", 429, busy, "server/door.py",
              "max_concurrent_per_key", "max_concurrent of a key in --api-keys goes before it"),
        Limit("waiting_tokens", settings.max_waiting_tokens, "tokens", 429, busy, "scheduling/admission.py",
              "max_waiting_tokens", "of prompts, unless nobody waits"),
        Limit("queue_seconds", settings.max_queue_seconds or None, "s", 429, busy, "scheduling/admission.py",
              "max_queue_seconds", "as predicted when the request comes"),
    )  # fmt: skip


def _kept(settings: ServerSettings) -> tuple[Limit, ...]:
    return (
        Limit("request_log_bytes", settings.request_log_bytes, "bytes", None, None, "server/request_log.py",
              "request_log_bytes", "then it begins anew; one file before it is kept"),
        Limit("request_log_pending", MAX_PENDING_ENTRIES, "answers", None, None, "server/request_log.py",
              note="that wait to be written; more are left out"),
        Limit("metric_series", MAX_METRIC_SERIES, "series", None, None, "server/record.py",
              note="labels are routes, statuses and our own words, never what a request says"),
    )  # fmt: skip


def _files() -> tuple[Limit, ...]:
    return (
        Limit("config_file_bytes", MAX_CONFIG_BYTES, "bytes", None, None, "typed_json.py", note="no start"),
        Limit("tensor_header_bytes", MAX_TENSOR_HEADER_BYTES, "bytes", None, None, "weights/safetensors.py",
              note="no start"),
        Limit("packed_index_bytes", MAX_PACKED_INDEX_BYTES, "bytes", None, None, "weights/packed_file.py",
              note="packed again"),
        Limit("key_file_bytes", MAX_KEY_FILE_BYTES, "bytes", None, None, "tenancy/keys.py", note="no start"),
        Limit("keys", MAX_KEYS, "keys", None, None, "tenancy/keys.py", note="no start"),
    )  # fmt: skip
