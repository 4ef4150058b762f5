"""A corpus of hostile requests, made from a seed before anything is sent.

    python -m chaos.corpus --requests 100000 --seed 1 corpus.jsonl

    valid      bodies that a client might mean, with few tokens to compute
    value      a field with junk in it          tree      another shape of the JSON
    bytes      damaged text                     unicode   text that breaks programs
    json       texts that parsers disagree on   wire      heads, lengths, chunks and timing that lie
    advisory   every payload of `advisories.py`, again and again

Knows: how much there is of each. Does not know: sockets.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

from chaos import advisories, lies, mutate, torture
from chaos.bodies import Body, any_body, is_short, names_of
from chaos.entry import ANSWERED, Entry, write
from chaos.http_text import CHAT, COMPLETIONS, KEY, NUM_STRANGERS, Raw, post, stranger

SHARES = {"valid": 12, "value": 26, "tree": 14, "bytes": 14, "unicode": 10, "json": 5, "wire": 15, "advisory": 4}
ADVISORY_EVERY = 25  # requests, where there are many
LEAVE_S = 0.3  # an answer that is not short is left after so long


def entries(num: int, seed: int) -> Iterator[Entry]:
    """`num` entries. Every class of advisories is among them, every payload where there are enough, spread evenly."""
    rng = Random(seed)
    texts, json_texts = torture.strings(), torture.json_texts()
    known = advisories.all_entries(rng)
    due = max(min(len(advisories.TABLE), num), num // ADVISORY_EVERY)
    kinds = {name: share for name, share in SHARES.items() if name != "advisory"}
    sent = 0
    for number in range(num):
        if sent < due and (number + 1) * due // num > sent:
            entry = known[sent % len(known)]
            sent += 1
        else:
            entry = _one(rng, rng.choices(list(kinds), list(kinds.values()))[0], texts, json_texts)
        yield entry.with_text(KEY, stranger(rng.randrange(NUM_STRANGERS)))


def _one(rng: Random, kind: str, texts: tuple[str, ...], json_texts: tuple[str, ...]) -> Entry:
    if kind == "wire":
        return rng.choice(lies.ALL)(rng)
    path, body = any_body(rng)
    if kind == "json":
        return Entry(kind, (post(path, rng.choice(json_texts)),))
    if kind == "bytes":
        return Entry(kind, (post(path, mutate.bytes_changed(rng, body)),), leave_s=LEAVE_S)
    if kind == "unicode":
        return Entry(kind, (post(path, mutate.with_text(rng, body, rng.choice(texts))),))
    changed = body if kind == "valid" else _changed(rng, kind, path, body)
    generates = path in (CHAT, COMPLETIONS)
    return Entry(kind, (post(path, changed),), ANSWERED, LEAVE_S if generates and not _is_short(changed) else None)


def _changed(rng: Random, kind: str, path: str, body: Body) -> object:
    names = names_of(CHAT if path.startswith(CHAT) else COMPLETIONS) if path.startswith("/v1") else ()
    return mutate.value_changed(rng, body, names) if kind == "value" else mutate.tree_changed(rng, body)


def _is_short(body: object) -> bool:
    """Flex requests wait for as long as others want the machine: nobody waits with them here."""
    if not isinstance(body, dict) or body.get("service_tier") == "flex":
        return False
    return is_short({name: _plain(value) for name, value in body.items()})


def _plain(value: object) -> object:
    return None if isinstance(value, Raw) else value


def family(kind: str) -> str:
    """`advisory` of `advisory:n`, `wire` of its parts."""
    head = kind.partition(":")[0]
    return head if head in SHARES else "wire"


def main() -> int:
    """Write a corpus and say what is in it."""
    parser = argparse.ArgumentParser(prog="python -m chaos.corpus")
    parser.add_argument("path", type=Path)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    found: Counter[str] = Counter()

    def counted() -> Iterator[Entry]:
        for entry in entries(args.requests, args.seed):
            found[family(entry.kind)] += 1
            yield entry

    num = write(args.path, counted())
    shares = ", ".join(f"{name} {found[name]}" for name in SHARES)
    print(f"{num} requests, {args.path.stat().st_size / 2**20:.1f} MiB: {shares}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
