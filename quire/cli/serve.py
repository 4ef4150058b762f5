"""`quire serve`: address, plan, engine process, HTTP server - in the order that gets a first token out soonest.

Knows: how the parts of a server are started and stopped together. Does not know: what they do with a request.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quire import __version__
from quire.cli import exposure
from quire.cli.descriptors import room_for
from quire.cli.listener import open_listener
from quire.cli.prepare import Prepared, describe, prepare
from quire.cli.progress import LoadingBar
from quire.cli.reloading import Kept, Reloading
from quire.cli.successor import check_ready_fd
from quire.engine.client import EngineClient
from quire.engine.messages import Ready
from quire.engine.process import MODULE, spawn
from quire.observe.lines import Lines
from quire.plan import Contract
from quire.server.tls import Tls, tls_files
from quire.settings import EngineSettings, ServerSettings
from quire.tenancy.keys import KeyRing, warnings

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from quire.server.protocol import Bounds
    from quire.server.service import Service

    Built = tuple[Service, Starlette]

ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def serve(
    model: str | None, revision: str | None, engine: EngineSettings, server: ServerSettings, module: str = MODULE
) -> int:
    """Serve until told to stop; the exit code. Raises `StartError` before anything half-started is left behind.

    `module` is what engine processes start with: ours, or one with a fault to be found.
    """
    import uvloop

    from quire.observe import log

    log.set_up(server.log_level)
    ring = None if server.api_keys is None else KeyRing(Path(server.api_keys))
    files = tls_files(server.tls_certificate, server.tls_key, server.tls_client_ca)
    tls = None if files is None else Tls(files)
    listener, is_inherited = open_listener(server.host, server.port, server.listen_fd)
    try:
        exposure.check_exposure(listener, server)
        check_ready_fd(server.ready_fd)
        prepared = prepare(model, revision, engine)
        for line in describe(prepared):
            _say(line)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            start = partial(spawn, prepared.plan, prepared.folder, contract_of(server), module)
            return runner.run(_serve(prepared, server, ring, tls, listener, is_inherited, start))
    finally:
        listener.close()


async def _serve(
    prepared: Prepared,
    settings: ServerSettings,
    ring: KeyRing | None,
    tls: Tls | None,
    listener: socket.socket,
    is_inherited: bool,
    start: Callable[[], EngineClient],
) -> int:
    client = start()
    bar = LoadingBar()
    client.on_loading = bar.show
    try:
        # The child loads weights while this process imports its web framework and reads the tokenizer.
        building = asyncio.to_thread(build_app, prepared, settings, client, ring)
        ready, (service, app) = await _both(client.start(), building)
        bar.close()
        client.on_loading = None  # engines that come later load while others are answered
        for line in describe_service(service):
            _say(line)
        from quire.cli.handover import Handover
        from quire.cli.listen import Stay, listen
        from quire.server.leaving import Patience

        reloading = Reloading(kept_of(ring, tls), _say)
        if reloading.has_any:  # else SIGHUP is what it is for every program: the terminal has gone
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reloading.order)
        watching = asyncio.create_task(reloading.watch())

        def answers() -> None:
            _announce(ready, settings, prepared, ring, tls, listener)

        patience = Patience(settings.drain_grace, settings.drain_timeout)
        command = [sys.executable, *sys.orig_argv[1:]]
        handover = Handover(command, prepared.plan, service.log)
        stay = Stay(service.lifecycle, patience, handover, is_inherited, settings.ready_fd, bounds_of(settings))
        try:
            return await listen(app, listener, client, answers, stay, None if tls is None else tls.context)
        finally:
            watching.cancel()
            if service.log is not None:
                service.log.close()
    finally:
        bar.close()
        await client.close()


async def _both(start: Coroutine[Any, Any, Ready], build: Coroutine[Any, Any, Built]) -> tuple[Ready, Built]:
    """Both results, or the first error of either."""
    starting, building = asyncio.ensure_future(start), asyncio.ensure_future(build)
    done, pending = await asyncio.wait({starting, building}, return_when=asyncio.FIRST_EXCEPTION)
    for task in pending:
        task.cancel()
    for error in [task.exception() for task in done]:
        if error is not None:
            raise error
    return starting.result(), building.result()


def bounds_of(settings: ServerSettings) -> Bounds:
    """How many connections there may be, as far as this process may have so many files open."""
    from quire.server.protocol import Bounds

    bounds = Bounds(room_for(settings.max_connections), settings.max_connections_per_address)
    if bounds.num_connections < settings.max_connections:
        _say(f"WARNING  {bounds.num_connections} connections at most: this process may not have more files open")
    return bounds


def contract_of(settings: ServerSettings) -> Contract:
    """What these settings promise to those who come."""
    return Contract(settings.max_queue_seconds or inf, settings.max_waiting_tokens)


def build_app(
    prepared: Prepared, settings: ServerSettings, client: EngineClient, ring: KeyRing | None = None
) -> tuple[Service, Starlette]:
    """Everything between HTTP and the engine's client."""
    import quire.cli.listen  # noqa: F401 - imported here because here there is time for it
    from quire.server.app import create_app

    service = build_service(prepared, settings, client, ring)
    return service, create_app(service)


def describe_service(service: Service) -> list[str]:
    """What every request's text goes through, and what it gets where it asks for nothing, as a person reads it."""
    from quire.request import SamplingParams
    from quire.server.public_files import describe as describe_public

    params = replace(SamplingParams(max_tokens=None), **service.defaults.as_params())
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens")
    chosen = ", ".join([f"{name} {value:g}" for name in names if (value := getattr(params, name)) is not None])
    digest = f"sha256 {service.template.digest[:16]}" if service.template.digest else "none"
    told = [f"template {digest}, {service.spoken.describe()}", f"defaults {chosen}"]
    if service.log is not None:
        told.append(f"WARNING  every prompt and answer is written to {service.log.path} (--request-log)")
    told += describe_public(service)
    return [*told, f"receipt  {service.fingerprint}: {', '.join(' '.join(part) for part in service.receipt.parts)}"]


def build_service(
    prepared: Prepared, settings: ServerSettings, client: EngineClient, ring: KeyRing | None = None
) -> Service:
    """What the routes need; `client` may still be starting."""
    from quire.model_spec import read_generation_defaults
    from quire.server.public_files import read_public
    from quire.server.receipts import server_receipt
    from quire.server.request_log import RequestLog
    from quire.server.service import Service
    from quire.server.speech import Spoken
    from quire.text.template import ChatTemplate
    from quire.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_folder(prepared.folder)
    template = ChatTemplate.from_folder(prepared.folder, settings.chat_template, now=datetime.now)
    spoken = Spoken.of(template, tokenizer, settings.tool_format, settings.reasoning_format)
    defaults = read_generation_defaults(prepared.folder)
    log = None if settings.request_log is None else RequestLog(Path(settings.request_log), settings.request_log_bytes)
    service = Service(
        client=client,
        tokenizer=tokenizer,
        template=template,
        plan=prepared.plan,
        spec=prepared.spec,
        spoken=spoken,
        settings=settings,
        names=settings.served_model_name or (prepared.name,),
        version=__version__,
        created=int(time.time()),
        keys=ring,
        defaults=defaults,
        folder=str(prepared.folder.resolve()),
        own=server_receipt(__version__, tokenizer, template, spoken, defaults),
        log=log,
    )
    return replace(service, public=read_public(service, settings.public_prefix)) if settings.public_prefix else service


def kept_of(ring: KeyRing | None, tls: Tls | None) -> list[Kept]:
    """What is read again while the server runs."""
    kept = []
    if ring is not None:
        kept.append(Kept("keys", (ring.path,), ring.reload, lambda: f"{len(ring.names)} of {ring.path}"))
    if tls is not None:
        pair = (tls.files.certificate, tls.files.key)
        kept.append(Kept("tls files", pair, tls.reload, lambda: f"certificate {tls.files.certificate}"))
    return kept


def _announce(
    ready: Ready,
    settings: ServerSettings,
    prepared: Prepared,
    ring: KeyRing | None,
    tls: Tls | None,
    listener: socket.socket,
) -> None:
    host, port = listener.getsockname()[:2]
    reachable = ANYWHERE.get(host, host)
    scheme = "http" if tls is None else "https"
    url = f"{scheme}://[{reachable}]:{port}" if ":" in reachable else f"{scheme}://{reachable}:{port}"
    is_locked = settings.api_key is not None or ring is not None
    key = ' -H "Authorization: Bearer $KEY"' if is_locked else ""
    name = (settings.served_model_name or (prepared.name,))[0]
    _say(f"kernels  {ready.isa}, loaded in {ready.load_s:.2f} s")
    for note in ready.notes:
        _say(f"note     {note}")
    found = exposure.warnings(listener, settings)
    if ring is not None:
        _say(f"keys     {len(ring.names)} of {ring.path}")
        found += warnings(ring.path)
    if tls is not None:
        found += tls.warnings(datetime.now(UTC))
    for warning in found:
        _say(f"WARNING  {warning}")
    _say(f"serving  {name} at {url}/v1")
    question = '{"messages": [{"role": "user", "content": "Hello!"}]}'
    _say(f"try      curl {url}/v1/chat/completions -H 'Content-Type: application/json'{key} -d '{question}'")


def _say(line: str) -> None:
    Lines(sys.stderr).tell(line)
