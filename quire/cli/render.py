"""`quire render`: what a request would compute, shown by the same path that computes it; no engine is started.

Knows: request bodies, the server's translation. Does not know: sampling, HTTP.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quire.cli.asking import conversation
from quire.cli.prepare import prepare
from quire.cli.run import Question
from quire.cli.serve import build_service
from quire.engine.client import EngineClient
from quire.engine.messages import FromEngine, ToEngine
from quire.errors import InvalidSetting
from quire.request import Constraint
from quire.settings import EngineSettings, ServerSettings

FILE = "@"


def render(
    question: Question,
    model: str | None,
    revision: str | None,
    settings: EngineSettings,
    chat_template: str | None,
    as_json: bool,
) -> None:
    """Print the prompt's text as it is, its ids to stderr; or everything about it as JSON."""
    prepared = prepare(model, revision, settings)
    service = build_service(prepared, ServerSettings(chat_template=chat_template), _Unasked(_NoEngine()))
    shown = asyncio.run(_shown(service, _body(question)))
    service.threads.shutdown()
    if as_json:
        sys.stdout.write(json.dumps(shown, ensure_ascii=False, indent=2) + "\n")
        return
    for prompt in shown.get("prompts", [shown]):
        sys.stdout.write(prompt["prompt"])
        sys.stdout.flush()
        ids = " ".join(map(str, prompt["token_ids"]))
        sys.stderr.write(f"\n{prompt['num_tokens']} tokens: {ids}\n")


def _body(question: Question) -> dict[str, Any]:
    """The request's body: a file's, or one made of the question."""
    from quire.server.json_body import parse_object

    if question.text.startswith(FILE) and not question.raw:
        path = Path(question.text.removeprefix(FILE))
        try:
            return parse_object(path.read_bytes())
        except OSError as error:
            raise InvalidSetting("the request's file cannot be read", got=str(path), hint=error.strerror) from None
    if question.raw:
        return {"prompt": question.text}
    return {"messages": conversation(question.text, question.system)}


async def _shown(service: Any, body: dict[str, Any]) -> dict[str, Any]:
    from quire.server import schema
    from quire.server.rendering import rendered
    from quire.server.terms import Terms
    from quire.server.translate import chat_job, completion_job

    with service.door.visit() as visit:
        if "messages" in body:
            return rendered(service, await chat_job(service, schema.read(schema.ChatBody, body), visit, Terms()))
        return rendered(
            service, await completion_job(service, schema.read(schema.CompletionBody, body), visit, Terms())
        )


class _Unasked(EngineClient):
    """A client that is asked for nothing but grammars, which nobody compiles here."""

    async def prepare(self, constraint: Constraint) -> None:
        """What cannot be compiled is found when it is sent."""


class _NoEngine:
    """A link to nothing."""

    async def open(self, on_message: Callable[[FromEngine], None], on_lost: Callable[[str], None]) -> None:
        """There is nothing to open."""
        raise NotImplementedError

    def send(self, message: ToEngine) -> None:
        """There is nobody to send to."""
        raise NotImplementedError

    async def close(self) -> None:
        """There is nothing to close."""
