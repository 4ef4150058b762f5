"""Every fuzzer for so many seconds each: `make fuzz`, `make fuzz SECONDS=600 TARGETS="wire http"`.

    python fuzz/run.py QUIRE FUZZ_PYTHON [--seconds 20] [--targets ...] [--json]

    http     schemathesis over /openapi.json of a server with the bundled model
    typed    hypothesis over typed requests, served by a real scheduler
    others   atheris over a reader of foreign bytes each (`targets.py`)

A finding leaves a file that reproduces it under build/fuzz/findings, and the exit code is 1.

Knows: how fuzzers are started and bounded. Does not know: what they check.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILT = ROOT / "build" / "fuzz"
FINDINGS = BUILT / "findings"
SERVING = re.compile(r"^serving\s.* at (http://\S+)/v1$")
TALK = re.compile(r"INFO: |WARNING: Failed|#\d+\s|\"|#####|Dictionary:")  # of libFuzzer, of no use afterwards
ATHERIS = ("wire", "safetensors", "packed", "model_config", "template", "keys", "json_body", "request", "schema")
TARGETS = ("http", "typed", *ATHERIS)
HANG_S = 10  # of one input
MEMORY_MB = 2048
LATE_S = 120  # beside its time: starting, shrinking a finding
# What schemathesis holds against every answer. That all of what the schema allows is accepted is not asked: fields that
# contradict each other, prompts over the context and grammars that do not compile are refused, and the schema cannot
# say them.
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
CHECKS += "negative_data_rejection"


def main() -> int:
    """Run them one after another; the worst of their ends."""
    asked = arguments()
    FINDINGS.mkdir(parents=True, exist_ok=True)
    results = []
    for name in asked.targets:
        start, before = time.monotonic(), found()
        run = {"http": over_http, "typed": typed}.get(name, guided)
        ended, tail = run(asked, name)
        new = sorted(str(path.relative_to(ROOT)) for path in found() - before)
        is_good = ended == 0 and not new
        results.append({"target": name, "seconds": round(time.monotonic() - start, 1), "ok": is_good, "found": new})
        say(f"{'ok    ' if is_good else 'FOUND '} {name:13} {results[-1]['seconds']:6.1f} s  {summary(tail)}")
        if not is_good:
            say(tail)
            for path in new:
                say(f"reproduce: {reproduction(asked, name, path)}")
    num_bad = sum(not each["ok"] for each in results)
    say(f"{'met   ' if not num_bad else 'missed'} no finding: {num_bad} of {len(results)} targets have one")
    if asked.json:
        print(json.dumps({"seconds_each": asked.seconds, "targets": results, "met": not num_bad}))
    return 1 if num_bad else 0


def arguments() -> Any:
    parser = argparse.ArgumentParser(description="Fuzz everything that reads what others wrote.")
    parser.add_argument("quire", help="the command that serves")
    parser.add_argument("python", help="the Python that has the fuzzers")
    parser.add_argument("--seconds", type=float, default=20, help="for each target")
    parser.add_argument(
        "--targets", nargs="*", default=TARGETS, choices=TARGETS, metavar="TARGET", help=", ".join(TARGETS)
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    asked = parser.parse_args()
    asked.targets = asked.targets or TARGETS
    return asked


def found() -> set[Path]:
    return set(FINDINGS.rglob("*")) if FINDINGS.exists() else set()


def python_of(asked: Any) -> str:
    return str(Path(asked.python).absolute())


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


def bounded(command: list[str], seconds: float) -> tuple[int, str]:
    """Exit code and the end of what it said; a fuzzer that does not end is a finding too. What it keeps for itself
    comes into build/."""
    try:
        ended = subprocess.run(command, env=environment(), cwd=BUILT, capture_output=True, text=True, errors="replace",
                               timeout=seconds + LATE_S)  # fmt: skip
    except subprocess.TimeoutExpired as late:
        return 124, f"did not end\n{late.stderr!r:.4000}"
    lines = [line for line in (ended.stdout + ended.stderr).splitlines() if not TALK.match(line)]
    return ended.returncode, "\n".join(lines)[-6000:]


def guided(asked: Any, name: str) -> tuple[int, str]:
    """libFuzzer on the corpus of the repository; what it adds stays in build/. A hang is one if it hangs again: the
    machine, or another process on it, may have stood still."""
    own = BUILT / name
    own.mkdir(parents=True, exist_ok=True)
    before = found()
    target = [python_of(asked), str(HERE / "target.py"), name]
    bounds = [f"-timeout={HANG_S}", f"-rss_limit_mb={MEMORY_MB}", f"-artifact_prefix={FINDINGS}/{name}-"]
    ended, tail = bounded(
        [*target, *bounds, f"-max_total_time={asked.seconds:.0f}", str(own), str(HERE / "corpus" / name)], asked.seconds
    )
    slow = [path for path in found() - before if "-timeout-" in path.name or "-slow-unit-" in path.name]
    for path in slow:
        if bounded([*target, *bounds, str(path)], HANG_S)[0] == 0:
            path.unlink()
    if slow and not found() - before:
        return 0, tail + "\na hang that did not come again"
    return ended, tail


def typed(asked: Any, name: str) -> tuple[int, str]:
    return bounded([python_of(asked), str(HERE / "typed.py"), str(asked.seconds), str(FINDINGS)], asked.seconds)


def over_http(asked: Any, name: str) -> tuple[int, str]:
    """A server of its own, with a key; it must answer when all is over."""
    key = "sk-fuzz"
    command = [asked.quire, "serve", "--port", "0", "--api-key", key, "--api-docs", "--log-level", "critical"]
    command += ["--max-model-len", "256"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        url = url_of(server)
        report = BUILT / "http"
        shutil.rmtree(report, ignore_errors=True)
        st = [str(Path(python_of(asked)).with_name("st")), "run", f"{url}/openapi.json", "--header", f"x-api-key:{key}",
              "--max-time", f"{asked.seconds:.0f}", "--checks", CHECKS, "--report", "ndjson", "--no-color",
              "--report-dir", str(report), "--request-timeout", "60", "--suppress-health-check", "all", "--warnings",
              "off"]  # fmt: skip
        ended, tail = bounded(st, asked.seconds)
        if ended:
            shutil.copytree(report, FINDINGS / f"http-{int(time.time())}")
        with urllib.request.urlopen(f"{url}/livez", timeout=10) as answer:
            return (ended, tail) if answer.status == 200 else (1, tail + f"\nafter it: {answer.status}")
    except OSError as gone:
        return 1, f"the server is gone: {gone}, exit code {server.poll()}"
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()


def url_of(server: subprocess.Popen[str]) -> str:
    """What it says when it serves."""
    lines = iter(server.stderr or ())
    for line in lines:
        if match := SERVING.match(line.rstrip()):
            threading.Thread(target=lambda: [None for _ in lines], daemon=True).start()
            return match[1]
    raise OSError("it did not start")


def summary(tail: str) -> str:
    """The line that says how much was tried."""
    for pattern in (r"Done \d+ runs in \d+ second\(s\)", r"-?\d+ examples", r"\d+ generated, .*"):
        if match := re.search(pattern, tail):
            return match[0].strip()
    return ""


def reproduction(asked: Any, name: str, path: str) -> str:
    if name in ATHERIS:
        return f"PYTHONPATH=. {asked.python} fuzz/target.py {name} {path}"
    return f"see {path}"


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
