"""Can the holder of one key learn from times whether another key has asked with a certain beginning of a prompt?

    python benchmarks/prefix_timing.py                     bundled model, 100 secrets: some 20 seconds
    python benchmarks/prefix_timing.py --trials 1000       the figure: the AUC's own error is then 0.013

Starts a real `quire serve` with two keys. For each of many secrets: the victim asks with it once; then the attacker
asks with the right guess and with a wrong one, in either order, once each (a second time would find the first), and
times the first token. Beside it, the same within one key, where hits must stay; and with what the operator declares
public, which both may find. AUC is the chance that a right guess was answered sooner than a wrong one: 0.5 tells
nothing, 1 everything.

Exit code 1 if a target is missed: across keys at most 0.55 and not one cached token told, within a key at least 0.95.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from live_server import LiveServer, live_server
from verdict import report

from quire.tenancy.keys import Key, hash_of

TEXT = "the fox river walked under a bridge and said quietly that nobody had seen rain since spring began"
KEYS = {"victim": "key-of-the-victim", "attacker": "key-of-the-attacker"}
ACROSS, WITHIN = 0.55, 0.95
WARM_UP = 10


def text_of(rng: random.Random, num_words: int) -> str:
    return " ".join(rng.choice(TEXT.split()) for _ in range(num_words))


def server(args: argparse.Namespace, folder: Path) -> AbstractContextManager[LiveServer]:
    """A real server with two keys and one public prefix."""
    (folder / "keys.toml").write_text("".join(Key(name, hash_of(key)).as_toml() for name, key in KEYS.items()))
    (folder / "keys.toml").chmod(0o600)
    (folder / "public.txt").write_text(text_of(random.Random(0), args.words))
    options = ["--api-keys", str(folder / "keys.toml"), "--public-prefix", str(folder / "public.txt")]
    return live_server(args.model, "--log-level", "error", "--drain-grace", "0", *options)


class Asker:
    """One key's connection."""

    def __init__(self, served: LiveServer, name: str) -> None:
        self._connection = http.client.HTTPConnection(*served.address, timeout=120)
        self._headers = {"authorization": f"Bearer {KEYS[name]}", "content-type": "application/json"}

    def ask(self, prompt: str) -> tuple[float, int]:
        """Seconds to the answer of one token, and how many tokens of the prompt it says were cached."""
        body = json.dumps({"prompt": prompt, "max_tokens": 1, "temperature": 0, "ignore_eos": True})
        try:
            seconds, data = self._exchange(body)
        except (ConnectionError, http.client.RemoteDisconnected):  # kept too long; nothing of it was read
            self._connection.close()
            seconds, data = self._exchange(body)
        answer = json.loads(data)
        if "usage" not in answer:
            raise SystemExit(f"the server refused: {data.decode(errors='replace')[:500]}")
        return seconds, answer["usage"]["prompt_tokens_details"]["cached_tokens"]

    def _exchange(self, body: str) -> tuple[float, bytes]:
        begin = time.perf_counter()
        self._connection.request("POST", "/v1/completions", body, self._headers)
        data = self._connection.getresponse().read()
        return time.perf_counter() - begin, data


def auc(right: list[float], wrong: list[float]) -> float:
    """The chance that one of `right` is less than one of `wrong` (Mann and Whitney's U, scaled)."""
    ranked = sorted([(value, 0) for value in right] + [(value, 1) for value in wrong])
    below = wins = 0.0
    place = 0
    while place < len(ranked):
        same = [kind for value, kind in ranked[place:] if value == ranked[place][0]]
        num_right, num_wrong = same.count(0), same.count(1)
        wins += num_wrong * below + num_right * num_wrong / 2
        below += num_right
        place += len(same)
    return wins / (len(right) * len(wrong))


def attack(args: argparse.Namespace, rng: random.Random, victim: Asker, attacker: Asker) -> dict[str, Any]:
    """Right and wrong guesses of `attacker` about what `victim` asked; both may be the same."""
    times: dict[bool, list[float]] = {True: [], False: []}
    told = 0
    for _ in range(args.trials):
        secret, other = text_of(rng, args.words), text_of(rng, args.words)
        victim.ask(f"{secret} {text_of(rng, 4)}")
        guesses = [(True, secret), (False, other)]
        rng.shuffle(guesses)
        for is_right, guess in guesses:
            seconds, num_cached = attacker.ask(f"{guess} {text_of(rng, 4)}")
            times[is_right].append(seconds)
            told += num_cached
    middle = {kind: sorted(times[kind])[len(times[kind]) // 2] for kind in times}
    return {
        "auc": round(auc(times[True], times[False]), 4),
        "right_ms": round(1000 * middle[True], 3),
        "wrong_ms": round(1000 * middle[False], 3),
        "cached_tokens_told": told,
    }


def run(args: argparse.Namespace) -> dict[str, Any]:
    """All that is measured, on one server."""
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as name, server(args, Path(name)) as served:
        victim, attacker = (Asker(served, name) for name in KEYS)
        for _ in range(WARM_UP):
            victim.ask(text_of(rng, args.words))
            attacker.ask(text_of(rng, args.words))
        public = text_of(random.Random(0), args.words)
        num_own = victim.ask(f"{public} Yes")[1]
        num_public = attacker.ask(f"{public} No")[1]
        across = attack(args, rng, victim, attacker)
        within = attack(args, rng, victim, victim)
    error = (1 / (6 * args.trials)) ** 0.5
    targets = {
        f"across keys: AUC at most {ACROSS}": across["auc"] <= ACROSS,
        "across keys: no cached token told": across["cached_tokens_told"] == 0,
        f"within a key: AUC at least {WITHIN}": within["auc"] >= WITHIN,
        "declared public: found by another key": num_own == 0 < num_public,
    }
    return {
        "trials": args.trials,
        "auc_error": round(error, 4),
        "across": across,
        "within": within,
        "public_tokens": num_public,
        "targets": targets,
    }


def show(found: dict[str, Any]) -> None:
    """For people."""
    for name in ("across", "within"):
        one = found[name]
        print(
            f"{name:8} AUC {one['auc']:.3f} +- {found['auc_error']:.3f}   right {one['right_ms']:.2f} ms"
            f"   wrong {one['wrong_ms']:.2f} ms   cached tokens told {one['cached_tokens_told']}"
        )
    print(f"public   {found['public_tokens']} tokens found by the other key")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder; the bundled model if absent")
    parser.add_argument("--trials", type=int, default=100, help="secrets, for each of the two attacks")
    parser.add_argument("--words", type=int, default=200, help="words of a secret, about as many tokens")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="the result as one line of JSON")
    args = parser.parse_args()
    return report(run(args), args.json, show)


if __name__ == "__main__":
    raise SystemExit(main())
