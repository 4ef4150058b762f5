"""A seeded request has the same bits under any load: with and without prefix cache, on one thread and two, restarted.

`benchmarks/reproducible.py` does the same a hundred times against real processes.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

from served import Served, exchange, served

from quire.engine.grammars import ThreadKeeper
from quire.settings import EngineSettings

PROMPT = "Once upon a time there was a fox who lived near the river and asked every day whether it would rain. " * 2
WANTED = {
    "prompt": PROMPT,
    "max_tokens": 24,
    "temperature": 1.0,
    "top_p": 0.95,
    "seed": 20,
    "logprobs": 5,
    "return_token_ids": True,
    "ignore_eos": True,
}
NUM_OTHERS = 8


def told(server: Served, seed: int) -> tuple[dict[str, Any], str]:
    """The answer in random company, half of which leaves early; and its fingerprint."""
    answer = server.do(_in_company(server, random.Random(seed)))
    return answer["choices"][0], answer["system_fingerprint"]


async def _in_company(server: Served, rng: random.Random) -> Any:
    others = [asyncio.create_task(_other(server, rng)) for _ in range(NUM_OTHERS)]
    await asyncio.sleep(rng.random() / 20)
    answer = (await _post(server, WANTED)).json()
    for each in others:
        each.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    return answer


async def _other(server: Served, rng: random.Random) -> None:
    words = " ".join(rng.choice(PROMPT.split()) for _ in range(rng.randrange(1, 90)))
    prompt = PROMPT + words if rng.random() < 0.3 else words
    body = {"prompt": prompt, "max_tokens": rng.randrange(1, 60), "n": rng.choice([1, 3]), "stream": True}
    await asyncio.wait_for(_post(server, body), rng.choice([0.02, 0.1, 10.0]))


async def _post(server: Served, body: Any) -> Any:
    import json

    return await exchange(
        server.app, "POST", "/v1/completions", [json.dumps(body).encode()], {"content-type": "application/json"}
    )


def test_ten_runs_are_one() -> None:
    answers, prints = [], set()
    for threads, cache, count in ((1, True, 3), (2, True, 3), (1, False, 2), (2, False, 2)):
        settings = EngineSettings(
            max_model_len=512, max_num_seqs=8, max_num_batched_tokens=64, threads=threads, prefix_cache=cache
        )
        with served(engine=settings, keep=ThreadKeeper) as server:
            for number in range(count):
                choice, fingerprint = told(server, 10 * threads + number)
                answers.append(choice)
                prints.add(fingerprint)
    assert len(answers) == 10
    assert len(answers[0]["token_ids"]) == len(answers[0]["logprobs"]["token_logprobs"]) == 24
    assert all(answer == answers[0] for answer in answers)
    assert len(prints) == 1
