"""One seeded request, many times, in changing company: are its bits always the same?

    python benchmarks/reproducible.py                                       bundled model, bf16, int8 and int4
    python benchmarks/reproducible.py --model FOLDER --formats int4 --runs 20

Starts a real `quire serve` per cell: each weight format, 1 and 2 threads, prefix cache on and off, every cell with a
restart in its middle. Beside the request others of random lengths come and go: streamed, whole, with n > 1, with a
prefix in common with it, and half of them aborted. Compared exactly: text, ids, the log probability of each token, the
five likeliest of each, the reason for the end; streamed and whole. Exit code 1 if any run differs from the first.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

FORMATS = {"bf16": [], "int8": ["--quantization", "int8"], "int4": ["--quantization", "int4"]}
TEXT = "the fox river walked under a bridge and said quietly that nobody had seen rain since spring began"
LOAD = 6  # others at any time


def text_of(rng: random.Random, num_words: int) -> str:
    return " ".join(rng.choice(TEXT.split()) for _ in range(num_words))


def request(args: argparse.Namespace) -> dict[str, Any]:
    """The one that is compared: drawn, not greedy, with logprobs."""
    return {
        "prompt": "Once upon a time " + text_of(random.Random(1), args.prompt_words),
        "max_tokens": args.tokens,
        "temperature": 1.0,
        "top_p": 0.95,
        "seed": 20,
        "logprobs": 5,
        "return_token_ids": True,
        "ignore_eos": True,
    }


@contextmanager
def server(args: argparse.Namespace, *options: str) -> Iterator[str]:
    """A real server on a free port; its URL."""
    model = [args.model] if args.model else []
    command = [sys.executable, "-m", "quire", "serve", *model, "--port", "0", "--log-level", "error", *options]
    with tempfile.TemporaryFile("w+") as said, subprocess.Popen(command, stderr=said) as process:
        try:
            yield url_of(process, said)
        finally:
            process.send_signal(signal.SIGTERM)


def url_of(process: subprocess.Popen[bytes], said: Any) -> str:
    end = time.monotonic() + 1800
    while process.poll() is None and time.monotonic() < end:
        said.seek(0)
        if found := re.search(r"serving .* at (\S+)/v1", said.read()):
            return found.group(1)
        time.sleep(0.05)
    said.seek(0)
    raise SystemExit(f"the server did not start:\n{said.read()}")


class Company(threading.Thread):
    """One who asks for anything, again and again, and often leaves before the end."""

    def __init__(self, url: str, seed: int, wanted: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self._url, self._rng, self._wanted = url, random.Random(seed), wanted
        self.over = threading.Event()
        self.num_asked = self.num_left = 0

    def run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=1800) as client:
            while not self.over.wait(self._rng.random() * 0.05):
                self.num_asked += 1
                self._ask(client)

    def _ask(self, client: httpx.Client) -> None:
        rng = self._rng
        words = text_of(rng, int(2 ** rng.uniform(0, 8)))
        shares = rng.random() < 0.3
        body = {
            "prompt": f"{self._wanted['prompt']} {words}" if shares else words,
            "max_tokens": rng.randrange(1, 60),
            "temperature": rng.choice([0.0, 0.8, 1.5]),
            "top_k": rng.choice([0, 20]),
            "n": rng.choice([1, 1, 1, 3]),
            "logprobs": rng.choice([None, 0, 5]),
            "presence_penalty": rng.choice([0.0, 0.5]),
            "stream": True,
        }
        stay = rng.randrange(1, 120) if rng.random() < 0.5 else 10**9
        with client.stream("POST", "/v1/completions", json=body) as answer:
            for number, _ in enumerate(answer.iter_lines()):
                if number >= stay or self.over.is_set():
                    self.num_left += 1
                    return


def ask(client: httpx.Client, body: dict[str, Any], streamed: bool) -> tuple[Any, ...]:
    """All that was told: text, ids, logprobs, the likeliest, the end."""
    if not streamed:
        answer = client.post("/v1/completions", json=body).raise_for_status().json()
        return told([answer["choices"][0]])
    choices = []
    with client.stream("POST", "/v1/completions", json={**body, "stream": True}) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                choices += json.loads(line[6:])["choices"]
    return told(choices)


def told(choices: list[dict[str, Any]]) -> tuple[Any, ...]:
    logprobs = [choice["logprobs"] for choice in choices if choice["logprobs"]]
    return (
        "".join(choice["text"] for choice in choices),
        tuple(token for choice in choices for token in choice.get("token_ids") or ()),
        tuple(value for each in logprobs for value in each["token_logprobs"]),
        tuple(tuple(sorted(top.items())) for each in logprobs for top in each["top_logprobs"]),
        choices[-1]["finish_reason"],
    )


def cell(
    args: argparse.Namespace, format: str, threads: int, cache: bool
) -> tuple[list[tuple[Any, ...]], set[str], str]:
    """Answers of one kind of server, with a restart in the middle; fingerprints; how much company there was."""
    options = [*FORMATS[format], "--threads", str(threads)]
    options.append("--prefix-cache" if cache else "--no-prefix-cache")
    body, answers, prints = request(args), [], set()
    asked = left = 0
    for half in range(2):
        count = args.runs // 2 + (args.runs % 2 if half else 0)
        with server(args, *options) as url, httpx.Client(base_url=url, timeout=1800) as client:
            company = [Company(url, 100 * half + number, body) for number in range(LOAD)]
            answers.append(ask(client, body, streamed=False))  # alone
            for each in company:
                each.start()
            for number in range(count - 1):
                answers.append(ask(client, body, streamed=number % 2 == 1))
            prints.add(client.get("/receipt").json()["system_fingerprint"])
            for each in company:
                each.over.set()
            for each in company:
                each.join(600)
            asked, left = asked + sum(c.num_asked for c in company), left + sum(c.num_left for c in company)
    return answers, prints, f"{asked} others, {left} left early"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--runs", type=int, default=25, help="runs a cell; four cells a format")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--prompt-words", type=int, default=60)
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), choices=list(FORMATS))
    args = parser.parse_args()
    num_wrong = 0
    for format in args.formats:
        first, runs, same = None, 0, 0
        for threads, cache in ((1, True), (1, False), (2, True), (2, False)):
            answers, prints, company = cell(args, format, threads, cache)
            first = first or answers[0]
            good = sum(answer == first for answer in answers)
            runs, same = runs + len(answers), same + good
            kind = f"{threads} thread{'s' if threads > 1 else ''}, prefix cache {'on' if cache else 'off'}"
            print(
                f"{format:5} {kind:28} {good} of {len(answers)} identical, {company}, {', '.join(sorted(prints))}",
                flush=True,
            )
        num_wrong += runs - same
        print(
            f"{format:5} {'all':28} {same} of {runs} identical: {len(first[1])} ids, {len(first[2])} logprobs",
            flush=True,
        )
    return 1 if num_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
