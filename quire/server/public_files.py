"""The files of `--public-prefix`, as ids: what is typed there becomes the tokens that a request's prompt begins with.

    system.json   {"messages": [{"role": "system", "content": "You are ..."}]}    through the chat template
    preamble.txt  any text                                                        as the prompt of a completion

The end of a text may become other tokens where it goes on: public is only what a prompt has in common with it.

Knows: files, the tokenizer, the template. Does not know: who shares what.
"""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from quire.errors import InvalidSetting, RequestError
from quire.server import schema
from quire.server.calling import read_calling
from quire.server.json_body import parse_object
from quire.server.prompts import read_and_encode
from quire.server.public import PublicPrefixes
from quire.server.service import Service

OPTION = "--public-prefix"
MAX_FILE_BYTES = 4 * 2**20


def read_public(service: Service, paths: tuple[str, ...]) -> PublicPrefixes:
    """What the files declare public. Raises `InvalidSetting` for one that cannot be a prompt's beginning."""
    return PublicPrefixes(tuple([_ids(service, Path(path)) for path in paths]))


def describe(service: Service) -> list[str]:
    """What is shared, as a person reads it."""
    told = []
    for path, prefix in zip(service.settings.public_prefix, service.public.prefixes, strict=True):
        num_shared = len(prefix) // service.plan.block_size * service.plan.block_size
        few = "" if num_shared else f": less than a block of {service.plan.block_size}, so nothing"
        told.append(f"public   {num_shared} of {len(prefix)} tokens of {path} are cached for all keys{few}")
    return told


def _ids(service: Service, path: Path) -> tuple[int, ...]:
    data = _read(path)
    try:
        ids = _chat(service, data) if path.suffix == ".json" else _text(service, data)
    except RequestError as problem:
        _refuse(path, problem.message)
    except UnicodeDecodeError:
        _refuse(path, "it is not UTF-8")
    if not ids:
        _refuse(path, "it holds no tokens")
    return ids


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as problem:
        _refuse(path, problem.strerror or "it cannot be read")
    if len(data) > MAX_FILE_BYTES:
        _refuse(path, f"it is larger than {MAX_FILE_BYTES} bytes")
    return data


def _chat(service: Service, data: bytes) -> tuple[int, ...]:
    body = schema.read(schema.TokenizeChatBody, {"add_generation_prompt": False, **parse_object(data)})
    return read_and_encode(service, body, read_calling(body.tools, body.tool_choice, True), False).ids


def _text(service: Service, data: bytes) -> tuple[int, ...]:
    return tuple(service.tokenizer.encode(data.decode("utf-8"), True, OPTION))


def _refuse(path: Path, why: str) -> NoReturn:
    raise InvalidSetting(
        f"{OPTION} cannot be used",
        got=f"{path}: {why}",
        allowed='text, or a .json file such as {"messages": [{"role": "system", "content": "..."}]}',
        param=OPTION,
    ) from None
