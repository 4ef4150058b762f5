"""Does anything get in without a key? Every route by every method, and made-up hosts, paths, headers and bytes.

    python benchmarks/break_in.py                        2,000 of the made-up kind: some 10 seconds
    python benchmarks/break_in.py --requests 100000      the figure

Starts a real `quire serve` with a key, a model name that nobody can guess, /openapi.json on. Everything is sent over
raw sockets, so nothing tidies it up. A break-in is any answer with a 2xx or 3xx status but those of the liveness routes
by GET or HEAD, any answer that names the model, any token computed, and any request that the server counts under a
route of its own. After all of it the right key must still open. The made-up requests are the same for the same --seed.
"""

from __future__ import annotations

import argparse
import random
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from live_server import live_server
from verdict import report

from quire.server.access import OPEN_PATHS
from quire.server.app import ROUTES

KEY = "the-right-key-7f3a"
NAME = "a-name-that-nobody-guesses-91c2"
LIVENESS = {"/health", "/livez", "/readyz", "/startupz"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get", "GE T")
WRONG = (
    "", "Authorization: Bearer", "Authorization: Bearer ", f"Authorization: {KEY}", f"Authorization: Basic {KEY}",
    f"Authorization: Bearer {KEY}x", f"Authorization: Bearer {KEY[:-1]}", f"Authorization: Bearer {KEY.upper()}",
    f"Authorization: Bearer x, Bearer {KEY}", f"x-api-key: {KEY[1:]}", f"api-key: {KEY}", f"x_api_key: {KEY}",
    f"Cookie: x-api-key={KEY}", f"Proxy-Authorization: Bearer {KEY}", "X-Forwarded-For: 127.0.0.1", "Host: /health",
    "X-HTTP-Method-Override: GET", "X-Original-URL: /health", "X-Forwarded-Prefix: /health", "X-Real-IP: 127.0.0.1",
)  # fmt: skip
PIECES = (
    "/", "//", "health", "livez", "readyz", "startupz", "v1", "models", "metrics", "chat", "completions", "..", ".",
    "%2e", "%2e%2e", "%2f", "%5c", "%00", ";", "?", "#", " ", "\\", "HEALTH", "%68ealth", "health%20", "@", ":80",
    "http:", "https:", "*", "&", "=", "\t", "openapi.json", "version", "localhost", "127.0.0.1", "%c0%ae", "%u002e",
)  # fmt: skip
HOSTS = ("x", "localhost", "127.0.0.1", "/health", "[::1]", "x:99999", "", "evil.example/health", "x\x00y", "a" * 300,
         "health", "http://x/health", "x, y")  # fmt: skip
HEADERS = (
    "Transfer-Encoding: chunked", "Transfer-Encoding: xchunked", "Transfer-Encoding: chunked, identity",
    "Content-Length: 0", "Content-Length: 5", "Content-Length: -1", "Content-Length: 0, 5", "Content-Length: +5",
    "Connection: close, x-api-key", "Connection: upgrade", "Upgrade: h2c", "Upgrade: websocket", "Expect: 100-continue",
    "Content-Type: application/json", "Origin: http://localhost", "Range: bytes=0-", "TE: trailers",
    "Access-Control-Request-Method: POST", "Forwarded: for=127.0.0.1;host=localhost;proto=https",
    " folded: line", "no-colon", ": empty", f"x-api-key : {KEY}", f"x-api-key\x00: {KEY}", f"x-api-key\t: {KEY}",
)  # fmt: skip
INNER = "GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"


def talk(url: str, data: bytes) -> bytes:
    """Send `data` on a connection of its own and say that it is all; everything that comes back."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as sock:
        heard = []
        try:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while part := sock.recv(65536):
                heard.append(part)
        except OSError:
            pass
        return b"".join(heard)


def crawl() -> Iterator[tuple[bytes, bool]]:
    """Every route by every method with every wrong key, and whether it is one of those that are open."""
    paths = [path.replace("{id:path}", NAME) for path, _, _ in ROUTES]
    for path in (*paths, "/openapi.json", "/", "/none", "/docs", "/redoc"):
        for method in METHODS:
            for wrong in WRONG:
                lines = [f"{method} {path} HTTP/1.1", "Connection: close", wrong]
                lines += [] if wrong.startswith("Host") else ["Host: x"]
                yield head(lines), path in OPEN_PATHS and method in ("GET", "HEAD")


def made_up(rng: random.Random) -> bytes:
    """One request that no client would send; never with the right key in its place."""
    target = rng.choice(("/", "/", "http://x/", "//", "")) + "".join(rng.choices(PIECES, k=rng.randint(0, 7)))
    if rng.random() < 0.4:
        target = rng.choice([path for path, _, _ in ROUTES]) + rng.choice(
            ("/", "//", "%00", ";x", "?x", "#", "/..", "")
        )
    method = rng.choice(METHODS) if rng.random() < 0.4 else rng.choice(("GET", "POST", "HEAD"))
    version = rng.choice(("1.0", "2.0", "0.9")) if rng.random() < 0.1 else "1.1"
    lines = [f"Host: {rng.choice(HOSTS)}" for _ in range(rng.choice((0, 1, 1, 1, 2)))]
    lines += ["Connection: close", *rng.choices(WRONG, k=rng.randint(0, 2))]
    lines += rng.choices(HEADERS, k=rng.choice((0, 0, 1, 2)))
    rng.shuffle(lines)
    lines.insert(0, f"{method} {target} HTTP/{version}")
    data = head(lines, rng.choice((b"\r\n", b"\r\n", b"\r\n", b"\n")))
    data += rng.choice((b"", b"{}", b"0\r\n\r\n", INNER.encode(), b"5\r\nhello\r\n0\r\n\r\n" + INNER.encode()))
    for _ in range(rng.choice((0, 0, 0, 0, 1, 3))):
        place = rng.randrange(len(data))
        data = data[:place] + bytes([rng.randrange(256)]) + data[place + rng.randint(0, 1) :]
    return data


def head(lines: list[str], end: bytes = b"\r\n") -> bytes:
    return end.join([line.encode("latin-1") for line in lines if line]) + end + end


def statuses(answer: bytes) -> list[int]:
    """Of all answers on a connection: there may be several."""
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


def opens(data: bytes) -> bool:
    """Whether a request line by itself asks one of the open routes by an open method, after decoding."""
    found = re.match(rb"(GET|HEAD) (?:https?://[^/?# ]*)?(/[^?# ]*)", data)
    if found is None:
        return False
    path = re.sub(rb"%([0-9a-fA-F]{2})", lambda code: bytes([int(code[1], 16)]), found[2])
    return path.decode("latin-1") in LIVENESS


def attack(args: argparse.Namespace, url: str) -> dict[str, Any]:
    """Everything, counted; the first break-ins as they were sent."""
    counts: dict[str, Counter[str]] = {"crawled": Counter(), "made up": Counter()}
    broken: list[str] = []

    def send(kind: str, data: bytes, is_open: bool) -> None:
        answer = talk(url, data)
        found = statuses(answer)
        counts[kind].update([str(status) for status in found] or ["closed"])
        inside = [status for status in found if status < 400]
        if (inside and not is_open) or len(inside) > 1 or NAME.encode() in answer.replace(b"/" + NAME.encode(), b""):
            broken.append(f"{data[:400]!r} -> {answer[:200]!r}")

    for data, is_open in crawl():
        send("crawled", data, is_open)
    rng = random.Random(args.seed)
    for _ in range(args.requests):
        data = made_up(rng)
        send("made up", data, opens(data))
    return {"statuses": {kind: dict(sorted(counts[kind].items())) for kind in counts}, "break_ins": broken}


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The attack, then what the server itself has counted."""
    options = ["--api-key", KEY, "--served-model-name", NAME, "--api-docs", "--log-level", "critical"]
    with live_server(args.model, *options, "--drain-grace", "0") as server:
        url = server.url
        begin = time.perf_counter()
        found = attack(args, url)
        seconds = time.perf_counter() - begin
        with_key = talk(url, head(["GET /v1/models HTTP/1.1", "Host: x", "Connection: close", f"x-api-key: {KEY}"]))
        metrics = talk(url, head(["GET /metrics HTTP/1.1", "Host: x", "Connection: close", f"x-api-key: {KEY}"]))
        if server.process.poll() is not None:
            raise SystemExit(f"the server ended:\n{server.text()[-2000:]}")
    tokens = sum([float(value) for value in re.findall(rb"^quire_\w*generation_tokens\w* (\S+)$", metrics, re.M)])
    served = re.findall(rb'route="(/v1/[^"]*)"', metrics)
    targets = {
        "no request came in without a key": not found["break_ins"],
        "no token was computed": tokens == 0,
        "the server counts no request under a route that needs a key, but ours": set(served) <= {b"/v1/models"},
        "the right key still opens": statuses(with_key) == [200] and NAME.encode() in with_key,
    }
    num = sum([sum(each.values()) for each in found["statuses"].values()])
    return {**found, "answers": num, "seconds": round(seconds, 1), "targets": targets}


def show(found: dict[str, Any]) -> None:
    """For people."""
    for kind, each in found["statuses"].items():
        print(f"{kind:8} {sum(each.values())}: " + ", ".join(f"{count} {status}" for status, count in each.items()))
    for each in found["break_ins"][:10]:
        print(f"BREAK-IN {each}")
    print(f"{found['seconds']} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder; the bundled model if absent")
    parser.add_argument(
        "--requests", type=int, default=2000, help="made-up requests, beside every route by every method"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="the result as one line of JSON")
    args = parser.parse_args()
    return report(run(args), args.json, show)


if __name__ == "__main__":
    raise SystemExit(main())
