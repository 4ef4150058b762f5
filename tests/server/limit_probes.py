"""What asks a server, or the module that checks it, for a number of something: a probe for each row of the limits.

Knows: how much is asked for in a body, a file or a call. Does not know: which answers are right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jinja2.exceptions import SecurityError

from quire.beams import Beams
from quire.errors import InvalidSetting, QuireError, RequestError
from quire.form import StructuredOutputsParams
from quire.sampling_params import RepetitionDetectionParams
from quire.server.door import Door
from quire.structured.source import grammar_of
from quire.tenancy.keys import read_keys
from quire.text.sandbox import Budget
from quire.typed_json import read_json
from quire.weights.safetensors import open_tensor_file

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


@dataclass(frozen=True)
class Body:
    """`num` of something in a JSON body: `opening`, `unit` as often as asked, `closing`. A `%d` in the unit counts."""

    path: str
    opening: bytes
    unit: bytes
    closing: bytes
    fixed: int = 0  # how many of them stand in opening and closing
    separator: bytes = b","
    each: int = 1  # of what is counted in one unit

    def made(self, num: int, most_bytes: int) -> tuple[bytes, int]:
        """The body's first bytes, all of them unless they are many more than `most_bytes`, and its whole length."""
        count = -(-(num - self.fixed) // self.each)
        length = len(self.opening) + len(self.closing) + count * (len(self.unit) + len(self.separator))
        kept = min(count, 2 * most_bytes // (len(self.unit) + len(self.separator)) + 2)
        counted = b"%" in self.unit
        units = [self.unit % index for index in range(kept)] if counted else [self.unit] * kept
        whole = self.opening + self.separator.join(units) + self.closing
        return whole, len(whole) if kept == count else length


@dataclass(frozen=True)
class Value:
    """The number itself in a body."""

    path: str
    field: str
    more: bytes = b""

    def made(self, num: int, most_bytes: int) -> tuple[bytes, int]:
        first = b'"prompt": "x"' if self.path == COMPLETIONS else b'"messages": [{"role": "user", "content": "x"}]'
        whole = b'{%s, "max_tokens": 1%s, "%s": %d}' % (first, self.more, self.field.encode(), num)
        return whole, len(whole)


@dataclass(frozen=True)
class Nested:
    """Lists in lists in a body."""

    path: str = COMPLETIONS

    def made(self, num: int, most_bytes: int) -> tuple[bytes, int]:
        whole = b'{"prompt": "x", "max_tokens": 1, "metadata": ' + b"[" * (num - 1) + b"]" * (num - 1) + b"}"
        return whole, len(whole)


@dataclass(frozen=True)
class Call:
    """A function that is asked for `num` and raises one of our errors where that is too many."""

    ask: Callable[[int], object]


@dataclass(frozen=True)
class File:
    """A file of `num` bytes, or what else is counted in it, and who reads it."""

    write: Callable[[Path, int], None]
    read: Callable[[Path], object]
    most: int  # a larger file is not written: its size alone is looked at


@dataclass(frozen=True)
class Elsewhere:
    """A cost that has no exact number of asks: the test that holds it."""

    file: str
    test: str


Probe = Body | Value | Nested | Call | File | Elsewhere


def prompt(opening: str, unit: str, closing: str, fixed: int = 0, separator: str = ",") -> Body:
    start = f'{{"prompt": "x", "max_tokens": 1, {opening}'
    return Body(COMPLETIONS, start.encode(), unit.encode(), (closing + "}").encode(), fixed, separator.encode())


def chat(opening: str, unit: str, closing: str, fixed: int = 0, separator: str = ",") -> Body:
    return Body(CHAT, ("{" + opening).encode(), unit.encode(), (closing + "}").encode(), fixed, separator.encode())


def asking(field: str, unit: str = "x") -> Body:
    """A string field of that many characters."""
    return prompt(f'"{field}": "', unit, '"', separator="")


MESSAGE = '{"role": "user", "content": "x"}'
TOOL = '{"type": "function", "function": {"name": "%s", "description": "%s"}}'
SAID = f'"max_tokens": 1, "messages": [{MESSAGE}]'


def sandboxed(spend: Callable[[Budget, int], None]) -> Call:
    def ask(num: int) -> None:
        try:
            spend(Budget(), num)
        except SecurityError as problem:
            raise RequestError(str(problem)) from problem

    return Call(ask)


def ask_door(num: int) -> None:
    with Door().visit() as visit:
        visit.ask(num, 64 + 1024)


def deep_schema(num: int) -> None:
    nested = '{"items": ' * (num - 1) + "{}" + "}" * (num - 1)
    grammar_of(StructuredOutputsParams(json=nested))


def many_values(num: int) -> None:
    """{"enum": [...]}: the object, the list, and what is in it."""
    grammar_of(StructuredOutputsParams(json={"enum": [0] * (num - 2)}))


def sparse(path: Path, num: int) -> None:
    with path.open("wb") as file:
        file.truncate(num)


def tensor_header(path: Path, num: int) -> None:
    path.write_bytes(num.to_bytes(8, "little") + b"{}")


def many_keys(path: Path, num: int) -> None:
    path.write_text("".join([f'[keys.k{i}]\nsha256 = "{i:064x}"\n' for i in range(num)]))


def read_config(path: Path) -> None:
    read_json(path)


def read_key_file(path: Path) -> None:
    try:
        read_keys(path)
    except InvalidSetting as problem:
        raise QuireError(problem.message) from problem


PROBES: dict[str, Probe] = {
    # A connection's own are in `test_limits_of_connections.py`.
    **{
        name: Elsewhere("server/test_limits_of_connections.py", f"test_{test}")
        for name, test in {
            "connections": "past_the_bound_a_connection_is_told_so",
            "connections_per_address": "an_address_has_its_own_bound",
            "head_bytes": "heads_have_limits",
            "request_target_bytes": "heads_have_limits",
            "headers": "heads_have_limits",
            "pipelined_requests": "who_does_not_wait_for_answers_is_closed",
            "pipelined_bytes": "what_waits_behind_an_answer_is_bounded_in_bytes",
            "head_seconds": "a_slow_head_is_told_so",
            "idle_seconds": "an_idle_connection_is_closed",
            "request_id_characters": "a_long_request_id_is_replaced",
            "bodies_bytes": "all_bodies_together_have_a_limit",
            "requests_per_key": "a_key_has_so_many_at_once",
            "metric_series": "labels_never_hold_what_a_request_says",
            "request_log_pending": "answers_that_wait_to_be_written_are_bounded",
        }.items()
    },
    "body_seconds": Elsewhere("server/test_access.py", "test_a_body_that_does_not_come_times_out"),
    "send_seconds": Elsewhere("server/test_leaving.py", "test_a_reader_that_never_reads_is_left_after_a_while"),
    "waiting_tokens": Elsewhere("engine/test_contract.py", "test_the_queue_is_bounded_in_tokens"),
    "queue_seconds": Elsewhere(
        "server/test_contract_route.py", "test_a_wait_over_the_bound_is_a_429_without_any_deadline"
    ),
    "request_log_bytes": Elsewhere("server/test_request_log.py", "test_it_begins_anew_and_keeps_one"),
    "lexer_states": Elsewhere("engine/test_grammar_process.py", "test_a_hostile_grammar_is_refused_or_ready_in_time"),
    "grammar_size": Elsewhere("engine/test_grammar_process.py", "test_a_hostile_grammar_is_refused_or_ready_in_time"),
    "compile_cpu_seconds": Elsewhere("engine/test_grammar_process.py", "test_what_takes_too_long_says_so"),
    "compile_seconds": Elsewhere("engine/test_grammar_process.py", "test_what_takes_too_long_says_so"),
    "compile_bytes": Elsewhere("engine/test_grammar_process.py", "test_a_hostile_grammar_is_refused_or_ready_in_time"),
    "compile_wait_seconds": Elsewhere(
        "engine/test_grammar_process.py", "test_a_crowd_of_hostile_grammars_does_not_shut_others_out"
    ),
    "owner_compile_seconds": Elsewhere("engine/test_grammar_process.py", "test_a_purse_is_spent_and_filled_up"),
    "packed_index_bytes": Elsewhere("weights/test_packed_file.py", "test_an_index_over_the_limit_is_not_read"),
    # Bodies.
    "body_bytes": Body(COMPLETIONS, b'{"prompt": "x", "max_tokens": 1, "metadata": "', b"y", b'"}', 48, b""),
    "json_depth": Nested(),
    "json_values": prompt('"metadata": [', "1", "]", fixed=4),
    "number_digits": prompt('"metadata": ', "7", "", separator=""),
    "user_characters": asking("user"),
    "cache_salt_characters": asking("cache_salt"),
    # Prompts.
    "model_tokens": Body(COMPLETIONS, b'{"max_tokens": 1, "prompt": [', b"5", b"]}"),
    "prompts": Body(COMPLETIONS, b'{"max_tokens": 1, "prompt": [', b'"x"', b"]}"),
    "choices": Body(COMPLETIONS, b'{"max_tokens": 1, "n": 8, "prompt": [', b'"x"', b"]}", each=8),
    "messages": chat('"max_tokens": 1, "messages": [', MESSAGE, "]"),
    "content_parts": chat(
        '"max_tokens": 1, "messages": [{"role": "user", "content": [', '{"type": "text", "text": ""}', "]}]"
    ),
    "tool_calls": chat(
        f'"max_tokens": 1, "messages": [{MESSAGE}, {{"role": "assistant", "tool_calls": [',
        '{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}',
        "]}]",
    ),
    "id_characters": chat(
        '"max_tokens": 1, "messages": [{"role": "user", "content": "x", "name": "', "a", '"}]', 0, ""
    ),
    "tools": chat(f'{SAID}, "tool_choice": "none", "tools": [', TOOL % ("f%d", ""), "]"),
    "tool_name_characters": chat(
        f'{SAID}, "tool_choice": "none", "tools": [{{"type": "function", "function": {{"name": "', "f", '"}}]', 0, ""
    ),
    "tool_description_characters": chat(
        f'{SAID}, "tool_choice": "none", "tools": [{TOOL % ("f", "")}'[:-3], "d", '"}}]', 0, ""
    ),
    "template_steps": sandboxed(Budget.step),
    "template_characters": sandboxed(Budget.output),
    # Sampling.
    "n": Value(COMPLETIONS, "n"),
    "best_of": Value(COMPLETIONS, "best_of"),
    "beam_width": Call(lambda num: Beams(num)),
    "stop_strings": prompt('"stop": [', '"a"', "]"),
    "stop_string_characters": asking("stop"),
    "stop_token_ids": prompt('"stop_token_ids": [', "5", "]"),
    "logprobs": Value(COMPLETIONS, "logprobs"),
    "prompt_logprobs": Value(COMPLETIONS, "prompt_logprobs"),
    "logit_bias": prompt('"logit_bias": {', '"%d": 1', "}"),
    "bad_words": prompt('"bad_words": [', '"zebra"', "]"),
    "bad_word_characters": prompt('"bad_words": ["', "z", '"]', separator=""),
    "allowed_token_ids": prompt('"allowed_token_ids": [', "5", "]"),
    "repetition_pattern": Call(lambda num: RepetitionDetectionParams(num, 0, 2)),
    "repetition_count": Call(lambda num: RepetitionDetectionParams(2, 0, num)),
    "thinking_tokens": Value(CHAT, "thinking_token_budget"),
    # Forms.
    "grammar_bytes": asking("guided_grammar"),
    "schema_depth": Call(deep_schema),
    "schema_values": Call(many_values),
    "choice_texts": prompt('"guided_choice": [', '"a"', "]"),
    "regex_characters": asking("guided_regex"),
    "whitespace_characters": prompt(
        '"guided_json": {"type": "object"}, "guided_whitespace_pattern": "', " ", '"', separator=""
    ),
    "structural_tags": prompt(
        '"response_format": {"type": "structural_tag", "triggers": ["<"], "structures": [',
        '{"begin": "<a", "schema": {}, "end": ""}',
        "]}",
    ),
    # The queue, and files.
    "requests_inside": Call(ask_door),
    "config_file_bytes": File(sparse, read_config, 2**40),
    "tensor_header_bytes": File(tensor_header, open_tensor_file, 2**62),
    "key_file_bytes": File(sparse, read_key_file, 2**40),
    "keys": File(many_keys, read_key_file, 20_000),
}
