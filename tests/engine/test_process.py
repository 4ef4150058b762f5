"""The engine in its own process: it serves, it dies aloud, it leaves when its front does."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from quire.engine import __main__ as begin
from quire.engine.client import EngineClient
from quire.engine.messages import Start
from quire.engine.process import ProcessLink
from quire.errors import BrokenCheckpoint, EngineDead, NotEnoughMemory
from quire.hardware import probe
from quire.llm import BUNDLED
from quire.model_spec import read_model_spec
from quire.plan import Plan, plan
from quire.request import Finish, Request, SamplingParams
from quire.settings import EngineSettings


def small_plan(folder: Path = BUNDLED) -> Plan:
    return plan(EngineSettings(max_model_len=512, max_num_seqs=4), probe(), read_model_spec(folder), str(folder))


def request(name: str, max_tokens: int) -> Request:
    return Request(name, (5, 6, 7), SamplingParams(seed=1, max_tokens=max_tokens, ignore_eos=True))


def serving(job) -> object:
    async def run() -> object:
        link = ProcessLink(small_plan(), BUNDLED)
        client = EngineClient(link)
        await client.start()
        try:
            return await asyncio.wait_for(job(client, link), 30)
        finally:
            await client.close()
            assert link.process.returncode is not None

    return asyncio.run(run())


def test_it_serves_and_leaves_with_its_pipe() -> None:
    async def job(client: EngineClient, link: ProcessLink) -> None:
        assert client.ready is not None
        assert client.ready.isa in ("generic", "avx2", "avx512", "amx")
        name = Path(f"/proc/{link.process.pid}/comm")
        if name.exists():
            assert name.read_text().strip() == "quire-engine"
        deltas = [delta async for delta in client.stream(request("r", 20))]
        assert sum(len(delta.tokens) for delta in deltas) == 20
        assert deltas[-1].finish is Finish.LENGTH

    serving(job)


def test_a_killed_engine_ends_every_stream_with_a_typed_error() -> None:
    async def job(client: EngineClient, link: ProcessLink) -> None:
        async def read(name: str) -> None:
            async for delta in client.stream(request(name, 480)):
                if delta.tokens and name == "a":
                    link.process.send_signal(signal.SIGKILL)

        ends = await asyncio.gather(read("a"), read("b"), return_exceptions=True)
        assert [type(end) for end in ends] == [EngineDead, EngineDead]
        assert not client.is_ready

    serving(job)


def test_a_checkpoint_that_breaks_while_loading_is_told_with_its_type(tmp_path: Path) -> None:
    for path in BUNDLED.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    made = small_plan(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])

    async def start() -> None:
        client = EngineClient(ProcessLink(made, tmp_path))
        try:
            await client.start()
        finally:
            await client.close()

    with pytest.raises(BrokenCheckpoint):
        asyncio.run(start())


def test_memory_that_the_system_does_not_give_is_told_with_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise MemoryError

    made = small_plan()
    mailbox = SimpleNamespace(is_open=True, receive=lambda wait: [Start(made, str(BUNDLED))])
    monkeypatch.setattr(begin, "build_engine", refuse)
    with pytest.raises(NotEnoughMemory, match=f"got {made.kv_bytes / 2**20:.0f} MiB of KV cache"):
        begin._serve(mailbox, SimpleNamespace(), None)
