"""What is fuzzed: for each reader of foreign bytes a function that takes bytes and hides only what it may raise.

    wire            frames of the engine's and the grammar process's pipes, in pieces
    safetensors     a file, opened, and its tensors against its size
    packed          a file of packed weights, whole, or its index with a right checksum
    model_config    config.json and generation_config.json
    template        tokenizer_config.json with a chat template, which is rendered
    keys            the TOML of --api-keys
    json_body       a request's bytes, against Python's own reader
    request         a request's JSON object to a typed body
    schema          a JSON schema to a grammar

Knows: which errors each reader promises. Does not know: where bytes come from.
"""

from __future__ import annotations

import json
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import fields
from datetime import datetime
from functools import cache
from math import prod
from pathlib import Path

from quire.engine.wire import Decoder, encode
from quire.errors import BrokenCheckpoint, InternalError, InvalidSetting, RequestError, StartError
from quire.form import StructuredOutputsParams
from quire.model_spec import read_generation_defaults, read_model_spec
from quire.server import schema
from quire.server.json_body import parse_object
from quire.structured.schema import COUNTS, NUMBERS, SCHEMA_LISTS, SCHEMA_MAPS, SCHEMAS, TYPES, UNHELD
from quire.structured.source import grammar_of
from quire.tenancy.keys import Key, read_keys
from quire.text.template import ChatTemplate
from quire.weights import packed_file
from quire.weights.safetensors import DTYPE_BITS, open_tensor_file

IDENTITY = {"layout": 1}
MAX_MESSAGE = 1200
TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "?"}]
NOW = datetime(2030, 1, 2)


@cache
def room() -> Path:
    """A folder of this process alone, in memory where there is such a place."""
    place = "/dev/shm" if Path("/dev/shm").is_dir() else None
    return Path(tempfile.mkdtemp(prefix="quire-fuzz-", dir=place))


def words() -> Iterator[str]:
    """Names that the readers look for: libFuzzer puts them together better than letter by letter."""
    for kind in (schema.ChatBody, schema.CompletionBody, schema.DetokenizeBody):
        yield from kind.model_fields
    yield from (field.name for field in fields(Key))
    yield from (*DTYPE_BITS, "dtype", "shape", "data_offsets", "__metadata__", "identity", "weights", "layout")
    yield from (
        *SCHEMA_MAPS,
        *SCHEMA_LISTS,
        *SCHEMAS,
        *COUNTS,
        *NUMBERS,
        *TYPES,
        *UNHELD,
        "enum",
        "const",
        "$ref",
        "#/",
    )
    yield from ("role", "content", "tool_calls", "function", "chat_template", "template", "bos_token", "true", "1e999")
    yield from ("rope_scaling", "rope_type", "factor", "eos_token_id", "{%", "%}", "{{", "}}", "for ", " in ", "range(")


def file_of(name: str, data: bytes) -> Path:
    path = room() / name
    path.write_bytes(data)
    return path


def wire(data: bytes) -> None:
    """What is read does not depend on how it is cut, and comes back as it was when written again."""
    cut = data[0] if data else 0
    whole, pieces = _frames([data[1:]]), _frames([data[1 : 1 + cut], data[1 + cut :]])
    assert repr(whole) == repr(pieces)
    for message in [each for each in whole if each is not None]:
        again = _frames([encode(message)])  # type: ignore[arg-type]
        assert repr(again) == repr([message])


def _frames(pieces: list[bytes]) -> list[object]:
    """Messages up to the first frame that is none of ours."""
    decoder, found = Decoder(), []
    try:
        for piece in pieces:
            for message in decoder.feed(piece):
                found.append(message)
    except InternalError:
        found.append(None)
    return found


def safetensors(data: bytes) -> None:
    try:
        file = open_tensor_file(file_of("model.safetensors", data))
    except BrokenCheckpoint:
        return
    for tensor in file.tensors.values():
        assert 8 <= tensor.begin <= tensor.end <= len(data)
        assert prod(tensor.shape) * DTYPE_BITS[tensor.dtype] == 8 * (tensor.end - tensor.begin)


def packed(data: bytes) -> None:
    """The first byte chooses: the file, or an index behind a prologue that fits it."""
    whole = data[1:]
    if data and data[0] < 128:
        body = bytes(packed_file.BODY_BEGIN - packed_file.PROLOGUE.size + 4096)
        begin = packed_file.PROLOGUE.size + len(body)
        prologue = packed_file.PROLOGUE.pack(packed_file.MAGIC, begin, len(data) - 1, zlib.crc32(data[1:]))
        whole = prologue + body + data[1:]
    try:
        packed_file.read(file_of("w.quire", whole), IDENTITY, 1)
    except packed_file.UnusableFile:
        return


def model_config(data: bytes) -> None:
    """Split at the first NUL: config.json, generation_config.json."""
    config, _, generation = data.partition(b"\0")
    file_of("config.json", config)
    file_of("generation_config.json", generation or b"{}")
    for read in (read_model_spec, read_generation_defaults):
        try:
            read(room())
        except StartError:
            continue


def template(data: bytes) -> None:
    file_of("tokenizer_config.json", data)
    try:
        found = ChatTemplate.from_folder(room(), now=lambda: NOW)
        found.render(TALK, add_generation_prompt=True)
    except (StartError, RequestError):
        return


def keys(data: bytes) -> None:
    try:
        found = read_keys(file_of("keys.toml", data))
    except InvalidSetting:
        return
    assert len({key.sha256 for key in found}) == len(found)
    written = "\n".join([key.as_toml() for key in found])
    assert read_keys(file_of("again.toml", written.encode())) == found


def json_body(data: bytes) -> None:
    """Never more than Python's reader takes, and the same."""
    try:
        found = parse_object(data)
    except RequestError:
        return
    assert found == json.loads(data.decode("utf-8"))
    json.dumps(found, ensure_ascii=False).encode("utf-8")


def request(data: bytes) -> None:
    """The first byte chooses the body."""
    kinds = (
        schema.ChatBody,
        schema.CompletionBody,
        schema.TokenizeChatBody,
        schema.TokenizeBody,
        schema.DetokenizeBody,
    )
    try:
        body = schema.read(kinds[data[0] % len(kinds) if data else 0], parse_object(data[1:]))
    except RequestError as error:
        if len(error.message) > MAX_MESSAGE:
            raise AssertionError("a message repeats the body") from error
        return
    body.model_dump_json()


def json_schema(data: bytes) -> None:
    try:
        value = parse_object(data)
        grammar_of(StructuredOutputsParams(json=value))
    except RequestError:
        return


TARGETS: dict[str, Callable[[bytes], None]] = {
    "wire": wire,
    "safetensors": safetensors,
    "packed": packed,
    "model_config": model_config,
    "template": template,
    "keys": keys,
    "json_body": json_body,
    "request": request,
    "schema": json_schema,
}
