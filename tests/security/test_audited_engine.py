"""Rules A and D in the engine's own process: what it does between the first request and the last.

Knows: what `audited_engine.py` writes. Does not know: how an answer is computed.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from forbidden import CLIENTS
from test_audit import FOREIGN, NEVER

from quire.cli.resolve import BUNDLED
from quire.engine.process import spawn
from quire.hardware import Hardware
from quire.model_spec import read_model_spec
from quire.plan import plan
from quire.request import Request, SamplingParams
from quire.settings import EngineSettings


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    if not (BUNDLED / "config.json").is_file():
        pytest.skip("the bundled model is not built")
    folders = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, folders)))
    monkeypatch.setenv("AUDIT_TO", str(tmp_path / "told.json"))
    settings = EngineSettings(max_model_len=256, max_num_seqs=4, max_num_batched_tokens=64, threads=1)
    small = plan(settings, Hardware("test", 1, 8 * 2**30, 8 * 2**30), read_model_spec(BUNDLED), "bundled")

    async def serve() -> int:
        client = spawn(small, BUNDLED, module="audited_engine")
        await client.start()
        params = SamplingParams(max_tokens=8, seed=1, n=2, temperature=1.0, logprobs=2)
        request = Request("r", tuple(range(5, 60)), params, (2,))
        num = 0
        async for delta in client.stream(request):
            num += len(delta.tokens)
        await client.close()
        return num

    assert asyncio.run(serve()) >= 2
    return dict(json.loads((tmp_path / "told.json").read_text()))


def test_an_engine_that_serves_runs_fetches_unpickles_and_opens_nothing(told: dict[str, Any]) -> None:
    assert told["heard"], "the hook hears something, if only that Python asks for an object's id"
    wrong = [each for each in told["heard"] if each[0].startswith((*NEVER, "import", "exec", "compile", "open"))]
    assert not wrong, wrong[:5]
    assert not set(told["modules"]) & (CLIENTS | FOREIGN)
