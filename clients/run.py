"""A server with the bundled model on a free port, and every client run against it.

    python clients/run.py QUIRE CLIENTS_PYTHON      QUIRE: the command that serves; CLIENTS_PYTHON: where clients are

Knows: how the server is started, found and stopped. Does not know: clients.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
SERVING = re.compile(r"^serving\s.* at (http://\S+)$")


def main(quire: str, python: str) -> int:
    key = f"sk-{secrets.token_hex(8)}"
    command = [quire, "serve", "--port", "0", "--api-key", key, "--log-level", "warning"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        env = os.environ | {"QUIRE_URL": url_of(server), "QUIRE_KEY": key}
        runs = ([python, "-m", "pytest", "-v", "--tb=short"], ["node", "--test", "--test-reporter=spec", "ai.test.mjs"])
        return max([subprocess.run(run, cwd=HERE, env=env).returncode for run in runs])
    finally:
        server.terminate()
        server.wait(30)


def url_of(server: subprocess.Popen[str]) -> str:
    """What it says when it serves; all that it says is passed on."""
    lines = iter(server.stderr or ())
    for line in lines:
        sys.stderr.write(line)
        if found := SERVING.match(line.rstrip()):
            threading.Thread(target=sys.stderr.writelines, args=(lines,), daemon=True).start()
            return found[1]
    raise SystemExit("the server did not start")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
