"""Our engine's process under an audit hook; what it heard after the start goes to the file that AUDIT_TO names.

Knows: CPython's audit events. Does not know: which are wrong (`test_audited_engine.py` does).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from quire.engine import loop
from quire.engine.__main__ import main

heard: list[tuple[str, str]] = []
listening = False
run = loop.run


def hook(event: str, arguments: tuple[Any, ...]) -> None:
    if listening:
        heard.append((event, " ".join([str(argument)[:80] for argument in arguments[:2]])))


def serving(*arguments: Any, **named: Any) -> Any:
    """`loop.run`, where serving begins and loading ends."""
    global listening
    listening = True
    try:
        return run(*arguments, **named)
    finally:
        listening = False
        Path(os.environ["AUDIT_TO"]).write_text(json.dumps({"heard": heard, "modules": sorted(sys.modules)}))


if __name__ == "__main__":
    sys.addaudithook(hook)
    loop.run = serving
    sys.exit(main(sys.argv[1:]))
