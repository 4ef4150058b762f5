"""What no honest client puts on a wire: heads, lengths, chunks and timing that lie.

Knows: HTTP/1.1 and how it can be broken. Does not know: bodies' meaning.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from chaos.entry import ANSWERED, HANGS_UP, Entry, Step
from chaos.http_text import (
    CHAT,
    COMPLETIONS,
    KEY,
    LAST_FRAME,
    chunked,
    frame,
    get,
    head,
    post,
    render,
    usual,
)

BODY = render({"prompt": "Once", "max_tokens": 1})
AWAY_S = 0.3
PATHS = (
    "/", "//", "/v1", "/v1/", "/v1/models/", "/v1/models/..", "/v1/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "/v1/models/%00",
    "/v1//chat/completions", "/V1/CHAT/COMPLETIONS", "/v1/chat/completions/", "/v1/chat/completions;x=1",
    "/../v1/models",
    "/%76%31/models", "/v1/models?x=" + "y" * 2000, "/.env", "/docs", "/openapi.json", "/admin", "/v1/embeddings", "*",
    "http://127.0.0.1/v1/models", "http://evil.example/v1/models", "/v1/models#x", "/v1/models/" + "a" * 9000,
    "/\xff\xfe",
    "/v1/completions/render/../..", "/metrics?name[]=x", "/health?deep=1", "/livez/../v1/models",
    "/livez%2f..%2fv1%2fmodels",
)  # fmt: skip
METHODS = (
    "GET",
    "POST",
    "PUT",
    "DELETE",
    "PATCH",
    "HEAD",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "PROPFIND",
    "get",
    "G\x00T",
    "A" * 40,
)
HEADERS = (
    ("Content-Type", "text/plain"), ("Content-Type", "application/json; charset=utf-16"), ("Content-Type",
    "multipart/form-data"),
    ("Content-Encoding", "gzip"), ("Content-Encoding", "br, zstd"), ("Accept", "image/png"), ("Accept-Encoding",
    "*;q=0"),
    ("Expect", "100-continue"), ("Expect", "a-miracle"), ("Connection", "upgrade"), ("Upgrade", "websocket"),
    ("Upgrade", "h2c"),
    ("Host", "evil.example/v1/models?"), ("Host", ""), ("X-Forwarded-For", "127.0.0.1"), ("X-Forwarded-Host", "x"),
    ("X-HTTP-Method-Override", "GET"), ("X-Original-URL", "/health"), ("Authorization", "Bearer "), ("Authorization",
    "Basic eA=="),
    ("Authorization", "Bearer " + "k" * 5000), ("x-api-key", "\xff"), ("X-Request-Id", "a" * 5000), ("X-Request-Id",
    "\x01"),
    ("X-Request-Id", 'a"}\\n{"level":"error'), ("x-quire-deadline-ms", "0"), ("x-quire-deadline-ms", "NaN"),
    ("x-quire-deadline-ms", "1"), ("x-quire-deadline-ms", "9" * 300), ("x-quire-seed", "5"), ("Range", "bytes=0-1,2-3"),
    ("Cookie", "a=" * 3000), ("Origin", "null"), ("Content-Length", "5"), ("Transfer-Encoding", "chunked"), ("Te",
    "trailers"),
    ("Transfer-Encoding", "gzip, chunked"), ("X-Empty", ""), ("X-Long", "y" * 30000), ("X-Control", "a\x0bb"),
)  # fmt: skip


def strange_route(rng: Random) -> Entry:
    """A method or a path that is not, or is not quite."""
    method, path = rng.choice(METHODS), rng.choice((*PATHS, CHAT, COMPLETIONS, "/tokenize", "/health", "/metrics"))
    with_body = rng.random() < 0.4
    text = head(method, path, usual(len(BODY) if with_body else None)) + (BODY if with_body else "")
    return Entry("route", (text,), HANGS_UP)


def strange_header(rng: Random) -> Entry:
    """Headers that ask for what there is not, or twice."""
    extra = rng.sample(HEADERS, rng.randint(1, 3))
    if rng.random() < 0.15:
        extra += [(f"X-Many-{number}", "v") for number in range(rng.choice((50, 150, 2000)))]
    if rng.random() < 0.3:
        return Entry("header", (get(rng.choice(("/v1/models", "/health", "/metrics")), extra),), HANGS_UP)
    key = None if any(name.lower() in ("authorization", "x-api-key") for name, _ in extra) else KEY
    return Entry("header", (post(COMPLETIONS, BODY, extra, key),), HANGS_UP)


def wrong_key(rng: Random) -> Entry:
    """Nobody's key, on any route."""
    key = rng.choice((None, "", "sk-wrong", KEY[:-1], KEY + "x", KEY.upper(), "\xe9", "x" * 8000))
    text = post(CHAT, BODY, key=key) if rng.random() < 0.5 else get("/v1/models", key=key)
    return Entry("key", (text,), ("401",) if key is None or len(key) < 8000 else ("401", "4xx", "closed"))


def cut_short(rng: Random) -> Entry:
    """A request that ends in its middle: the sender goes away, or just says no more."""
    text = post(rng.choice((CHAT, COMPLETIONS)), BODY)
    at = rng.randrange(len(text))
    return Entry("cut", (text[:at],), HANGS_UP, leave_s=rng.choice((0.0, AWAY_S, 1.5)))


def false_length(rng: Random) -> Entry:
    """Content-Length and the bytes that come do not agree."""
    lengths = (
        "0",
        "1",
        "-1",
        "+5",
        "5, 5",
        "5,6",
        " 7",
        "0x10",
        "99999999999999999999",
        "1e3",
        str(len(BODY) + 40),
        "",
        "1_0",
    )
    headers = [pair for pair in usual(0) if pair[0] != "Content-Length"]
    headers += [("Content-Length", rng.choice(lengths)) for _ in range(rng.choice((1, 1, 2)))]
    return Entry("length", (head("POST", COMPLETIONS, headers) + BODY,), HANGS_UP, leave_s=1.5)


def false_chunks(rng: Random) -> Entry:
    """Chunk sizes that lie, are huge, or never end."""
    frames = (
        frame(BODY) + LAST_FRAME, frame(BODY), "ffffffffffffffff\r\n" + BODY, "-5\r\n" + BODY,
        "zz\r\n" + BODY + "\r\n0\r\n\r\n",
        f"{len(BODY) + 9:x}\r\n{BODY}\r\n{LAST_FRAME}", f"{len(BODY) - 9:x}\r\n{BODY}\r\n{LAST_FRAME}",
        f"{len(BODY):x};ext={'e' * 20000}\r\n{BODY}\r\n{LAST_FRAME}", "".join(map(frame, BODY)) + LAST_FRAME,
        frame(BODY) + "0\r\nX-Trailer: " + "t" * 9000 + "\r\n\r\n", f"0{len(BODY):x}\r\n{BODY}\r\n0\r\n\r\n",
        LAST_FRAME, "\r\n",
        frame(BODY) + LAST_FRAME + get("/v1/models"), f"0x{len(BODY):x}\r\n{BODY}\r\n{LAST_FRAME}", "1" * 400 + "\r\n",
    )  # fmt: skip
    extra = rng.choice(([], [], [("Content-Length", "3")], [("Transfer-Encoding", "identity")]))
    return Entry("chunks", (chunked(COMPLETIONS, rng.choice(frames), extra),), HANGS_UP, leave_s=1.5)


def no_http(rng: Random) -> Entry:
    """Other protocols, and noise."""
    texts = (
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "r" * 200,
        "GET /\r\n\r\n", "\r\n" * 500,
        "GET / HTTP/9.9\r\n\r\n", "GET  /v1/models  HTTP/1.1\r\n\r\n", "GET /v1/models\r\nHost: x\r\n\r\n",
        "\x00" * 300, "HELO x\r\n",
        "GET /v1/models HTTP/1.1\nHost: x\n\n", "GET /v1/models HTTP/1.1\r\n Host: x\r\n\r\n",
        "GET /v1/models HTTP/1.1\r\nHost : x\r\n\r\n",
        "GET /v1/models HTTP/1.1\r\nNo colon\r\n\r\n", "GET /v1/models HTTP/1.1\r\n: x\r\n\r\n",
        "*1\r\n$4\r\nPING\r\n", "SSH-2.0-x\r\n",
        "".join(chr(rng.randrange(256)) for _ in range(200)),
    )  # fmt: skip
    return Entry("noise", (rng.choice(texts),), HANGS_UP, leave_s=1.0)


def pipelined(rng: Random) -> Entry:
    """Several requests in one packet, some of them broken."""
    honest = head("GET", rng.choice(("/v1/models", "/health")), usual()[:-1])
    asked = head("POST", COMPLETIONS, usual(len(BODY))[:-1]) + BODY
    parts: list[str] = [rng.choice((honest, asked)) for _ in range(rng.randint(2, 12))]
    if rng.random() < 0.5:
        parts.insert(rng.randrange(len(parts)), "NONSENSE\r\n\r\n")
    return Entry("pipeline", ("".join(parts) + get("/health"),), HANGS_UP, leave_s=2.0)


def slow(rng: Random) -> Entry:
    """Bytes that come one by one, or a head or body that stops."""
    text = post(COMPLETIONS, BODY)
    at = rng.randrange(1, len(text))
    if rng.random() < 0.5:
        steps: tuple[Step, ...] = (text[:at], rng.choice((0.2, 1.0)), text[at:])
        return Entry("slow", steps, ANSWERED)
    pieces: list[Step] = []
    for place in range(0, len(text), 40):
        pieces += [text[place : place + 40], 0.05]
    return Entry("slow", tuple(pieces), ANSWERED)


def gone(rng: Random) -> Entry:
    """A right request, of whose answer the sender reads little or nothing."""
    body = {"prompt": "Once upon a time", "max_tokens": 200, "stream": rng.random() < 0.7, "n": rng.choice((1, 1, 2))}
    return Entry("gone", (post(COMPLETIONS, body),), ANSWERED, leave_s=rng.choice((0.0, 0.0, 0.02, 0.1)))


ALL: tuple[Callable[[Random], Entry], ...] = (
    strange_route, strange_header, wrong_key, cut_short, false_length, false_chunks, no_http, pipelined, slow, gone,
)  # fmt: skip
