"""A whole server for tests: the app over a fake runner, its loop in a thread, so that tests stay plain functions.

Knows: how the parts of a server fit. Does not know: what a test wants to see.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette

import quire
from quire.cli.folder_receipt import folder_receipt
from quire.engine.build import Keep, build_engine, build_scheduler
from quire.engine.engine import Engine
from quire.engine.grammars import Told
from quire.engine.local import in_thread
from quire.hardware import Hardware
from quire.model_spec import read_model_spec
from quire.plan import Contract, plan
from quire.receipt import NO_RECEIPT
from quire.request import Constraint
from quire.runner.fake import FakeRunner
from quire.server.app import create_app
from quire.server.protocol import Bounds
from quire.server.request_log import RequestLog
from quire.server.serve import uvicorn_config
from quire.server.service import Service
from quire.server.speech import Spoken
from quire.settings import EngineSettings, ServerSettings
from quire.step import Draw, Step, StepResult
from quire.structured.order import Masked, MaskOrder
from quire.tenancy.keys import KeyRing
from quire.text.template import ChatTemplate
from quire.text.tokenizer import Tokenizer

BUNDLED = Path(quire.__file__).parent / "bundled"
TOKENIZER = Tokenizer.from_folder(BUNDLED)
NOW = datetime.now
TEMPLATE = ChatTemplate.from_folder(BUNDLED, now=NOW)
SPEC = read_model_spec(BUNDLED)
EOS = SPEC.eos_ids[0]
MACHINE = Hardware("test", 2, 8 * 2**30, 8 * 2**30)
MAX_MODEL_LEN = 512
TIMEOUT_S = 20
TEXT = "Once there was a small fox. It lived near the river and it was happy."


def says(text: str, end: bool = True) -> Callable[[Draw, int], int]:
    """A choice of tokens that answers every prompt with `text`, then ends (or begins again)."""
    return says_ids(TOKENIZER.encode(text, add_special_tokens=False), end)


def says_ids(ids: list[int], end: bool = True) -> Callable[[Draw, int], int]:
    script = [*ids, EOS] if end else ids
    return lambda draw, index: script[min(len(draw.history) - draw.num_prompt, 10**9) % len(script)]


class SlowRunner(FakeRunner):
    """Waits for `gate` before every step, takes `pace_s` for it, and counts steps."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.gate = threading.Event()
        self.gate.set()
        self.pace_s = 0.0
        self.num_steps = 0

    def run(self, step: Step) -> StepResult:
        assert self.gate.wait(TIMEOUT_S)
        self.num_steps += 1
        time.sleep(self.pace_s)
        return super().run(step)


class Believing:
    """Grammars that are never looked at: the fake runner says what it says."""

    rows = memoryview(b"")

    def prepare(self, constraint: Constraint, told: Told, is_known: bool = False) -> None:
        told(None)

    def begin(self, order: MaskOrder) -> None:
        raise NotImplementedError

    def wait(self) -> Masked:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is held."""


@dataclass
class Answer:
    """What came back over ASGI."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return self.json()["error"]

    def events(self) -> list[Any]:
        """Server-sent events, parsed; the last is "[DONE]" unless the stream broke off."""
        lines = [line for line in self.body.decode().split("\n\n") if line]
        assert all(line.startswith("data: ") for line in lines)
        return [line[6:] if line == "data: [DONE]" else json.loads(line[6:]) for line in lines]


class Served:
    """One server. `post`, `get` and `call` go through ASGI, `url` through a real socket. With `keep`
    the bundled model answers, and grammars are kept by what it makes."""

    def __init__(
        self,
        choose: Any = None,
        engine: EngineSettings | None = None,
        template: ChatTemplate = TEMPLATE,
        keep: Keep | None = None,
        log: RequestLog | None = None,
        **settings: Any,
    ) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        engine = engine or EngineSettings(max_model_len=MAX_MODEL_LEN, max_num_seqs=16, max_num_batched_tokens=128)
        self.plan = plan(engine, MACHINE, SPEC, "bundled")
        self.runner = SlowRunner(SPEC.vocab_size, self.plan.block_size, choose)
        given = ServerSettings(**settings)
        contract = Contract(given.max_queue_seconds or inf, given.max_waiting_tokens)
        built = build_engine(self.plan, BUNDLED, keep=keep) if keep else None
        self.engine = built.engine if built else Engine(build_scheduler(self.plan), self.runner, contract, Believing())
        self.client = in_thread(self.engine)
        seeds = iter(range(1, 10**9))
        self.service = Service(
            client=self.client,
            tokenizer=TOKENIZER,
            template=template,
            plan=self.plan,
            spec=SPEC,
            spoken=Spoken.of(template, TOKENIZER, given.tool_format, given.reasoning_format),
            settings=given,
            keys=None if given.api_keys is None else KeyRing(Path(given.api_keys)),
            names=("bundled", "org/other-name"),
            folder=str(BUNDLED),
            own=folder_receipt(BUNDLED) | built.receipt if built else NO_RECEIPT,
            log=log,
            version="0.0.0",
            seed=lambda: next(seeds),
            wall=lambda: 1_700_000_000.5,
            fresh_id=lambda: f"{next(seeds):06d}",
            created=1_600_000_000,
        )
        self.app: Starlette = create_app(self.service)
        self.do(self.client.start())
        self._bounds = Bounds(given.max_connections, given.max_connections_per_address)
        self._server: uvicorn.Server | None = None
        self._serving: Any = None
        self._url = ""

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run in the server's loop; a test that hangs fails."""
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, TIMEOUT_S), self.loop).result(TIMEOUT_S + 5)

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.call("POST", path, data, {"content-type": "application/json", **headers})

    def get(self, path: str, **headers: str) -> Answer:
        return self.call("GET", path, b"", headers)

    def call(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        return self.do(exchange(self.app, method, path, [body], headers))

    def chat(self, **body: Any) -> Answer:
        return self.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], **body})

    def complete(self, **body: Any) -> Answer:
        return self.post("/v1/completions", {"prompt": "Once upon", **body})

    @property
    def url(self) -> str:
        """Address of a real HTTP server around the same app."""
        if self._server is None:
            listener = socket.socket()
            listener.bind(("127.0.0.1", 0))
            self._server = uvicorn.Server(uvicorn_config(self.app, drain_s=1, bounds=self._bounds))
            self._serving = asyncio.run_coroutine_threadsafe(self._server._serve([listener]), self.loop)
            wait_until(lambda: self._server.started)
            self._url = "http://{}:{}".format(*listener.getsockname())
        return self._url

    def is_idle(self) -> bool:
        return not self.engine.has_work and self.client.num_open == 0 and self.service.door.num_inside == 0

    def close(self) -> None:
        self.runner.gate.set()
        if self._server is not None:
            self._server.should_exit = self._server.force_exit = True
            self._serving.result(TIMEOUT_S)
        self.do(self.client.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(TIMEOUT_S)
        self.service.threads.shutdown()
        if self.service.log is not None:
            self.service.log.close()
        if self.engine.grammars is not None:
            self.engine.grammars.close()
        self.loop.close()


def wait_until(condition: Callable[[], Any]) -> None:
    """Wait for what another thread brings about; fails after TIMEOUT_S."""
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


@contextmanager
def served(
    choose: Any = None,
    engine: EngineSettings | None = None,
    keep: Keep | None = None,
    log: RequestLog | None = None,
    **settings: Any,
) -> Iterator[Served]:
    server = Served(choose, engine, keep=keep, log=log, **settings)
    try:
        yield server
    finally:
        server.close()


def scope_of(method: str, path: str, headers: dict[str, str]) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [
            (name.replace("_", "-").lower().encode(), value.encode("latin-1")) for name, value in headers.items()
        ],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }


async def exchange(app: Any, method: str, path: str, parts: list[bytes], headers: dict[str, str]) -> Answer:
    """One request over ASGI; the client stays until the answer is complete."""
    waiting = [
        {"type": "http.request", "body": part, "more_body": place < len(parts) - 1} for place, part in enumerate(parts)
    ]
    answer, complete = Answer(), asyncio.Event()

    async def receive() -> dict[str, Any]:
        if waiting:
            return waiting.pop(0)
        await complete.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        assert not complete.is_set(), "something was sent after the end"
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode(): value.decode("latin-1") for name, value in message["headers"]}
        else:
            answer.body += message.get("body", b"")
            if not message.get("more_body", False):
                complete.set()

    await app(scope_of(method, path, headers), receive, send)
    assert complete.is_set(), "the answer did not end"
    return answer
