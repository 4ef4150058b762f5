"""Writes the beginnings of the corpora from real things: `python fuzz/seeds.py`. Small: they stand in the repository.

Knows: one or two good examples of each format. Does not know: what is made of them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

from quire.engine.messages import Abort, Failed, Loading, Prepare, Prepared, Refused, Submit
from quire.engine.wire import Message, encode
from quire.request import Constraint, Request
from quire.sampling_params import SamplingParams
from quire.structured.order import Masked, MaskOrder
from quire.tenancy.keys import Key, hash_of

HERE = Path(__file__).resolve().parent
BUNDLED = HERE.parent / "quire" / "bundled"
MESSAGES: tuple[Message, ...] = (
    Submit(Request("r", (1, 2), SamplingParams(seed=1, max_tokens=2, stop=["x"], logit_bias={3: 1.0}), (0,))),
    Abort("r", 1, True),
    Prepare("p", Constraint("start: /a/", "o")),
    Prepared("p", "RequestError", "no"),
    Loading(1, 2),
    Failed("EngineDead", "gone"),
    Refused("r", "QueueFull", "full", "prompt", 1.5, 2.5),
    MaskOrder(((1, "o", "start: /a/"),), ((1, 0, (5,), True),), (2,)),
    Masked(((0, "why"),), ((0, (1, 2)),)),
)
CHAT = {
    "model": "default",
    "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "é"}]}],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
    "tool_choice": "auto",
    "stop": ["a"],
    "logit_bias": {"5": 1.5},
    "stream": True,
    "stream_options": {"include_usage": True},
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
}
COMPLETION = {"prompt": [[1, 2], [3]], "max_tokens": 3, "n": 2, "best_of": 2, "logprobs": 1, "echo": False, "seed": -1}
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": ["string", "null"], "pattern": "^a+$"}, "b": {"$ref": "#/$defs/b"}},
    "required": ["a"],
    "additionalProperties": False,
    "$defs": {"b": {"anyOf": [{"enum": [1, "x"]}, {"type": "array", "items": {"const": 2}, "minItems": 1}]}},
}


def seeds() -> Iterator[tuple[str, str, bytes]]:
    """(target, name, bytes)."""
    for message in MESSAGES:
        yield "wire", type(message).__name__.lower(), b"\x03" + encode(message)
    header = json.dumps({"a": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}, "__metadata__": {"f": "pt"}})
    yield "safetensors", "one", struct.pack("<Q", len(header)) + header.encode() + bytes(8)
    entry = [3, 5, "int8", 32, True, 4096, 100, [3988292384]]
    yield "packed", "index", b"\0" + json.dumps({"identity": {"layout": 1}, "weights": {"a": entry}}).encode()
    yield "packed", "file", b"\xff" + b"quire-w1" + bytes(100)
    config, generation = (BUNDLED / "config.json").read_bytes(), (BUNDLED / "generation_config.json").read_bytes()
    yield "model_config", "bundled", config + b"\0" + generation
    scaled = {**json.loads(config), "rope_scaling": {"rope_type": "yarn", "factor": 2.0}}
    yield "model_config", "yarn", json.dumps(scaled).encode()
    chat = (BUNDLED / "chat_template.jinja").read_text(encoding="utf-8")
    tokenizer = json.loads((BUNDLED / "tokenizer_config.json").read_bytes())
    yield "template", "bundled", json.dumps({**tokenizer, "chat_template": chat}).encode()
    named = [{"name": "default", "template": "{% for m in messages %}{{ m.content | trim }}{% endfor %}"}]
    yield "template", "named", json.dumps({"chat_template": named, "bos_token": {"content": "<s>"}}).encode()
    ring = (Key("a", hash_of("a"), 2.0, 10.0, -5, 3), Key("b", hash_of("b")))
    yield "keys", "two", "\n".join([key.as_toml() for key in ring]).encode()
    for name, body in (("chat", CHAT), ("completion", COMPLETION)):
        yield "json_body", name, json.dumps(body).encode()
        yield "request", name, bytes([0 if name == "chat" else 1]) + json.dumps(body).encode()
    yield "json_body", "numbers", rb'{"a": [1e400, -0.0, 1E-5, 12345678901234567890], "b": "\ud83d\ude00\u0000"}'
    yield "schema", "object", json.dumps(SCHEMA).encode()


def main() -> None:
    for target, name, data in seeds():
        path = HERE / "corpus" / target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


if __name__ == "__main__":
    main()
