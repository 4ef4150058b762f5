"""How our own Python processes are started: where they look for modules, and where not.

`python -m` looks for every module in the current folder first, so whoever starts a server inside a model's folder would
run its numpy.py. A child of ours looks where its parent found quire, and where the interpreter looks anyway (-P).

Knows: the interpreter, its path. Does not know: what a child does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

# `home` goes first where the interpreter would not look by itself: in a source tree that is not installed.
START = (
    "import sys; home, _, module = sys.argv[1:4]; del sys.argv[1:4]; "
    "sys.path[:0] = [] if home in sys.path else [home]; "
    "import runpy; runpy.run_module(module, run_name='__main__', alter_sys=True)"
)


def command(module: str, arguments: Iterable[object]) -> list[str]:
    """What starts `module` as a program, as `python -m` would, but for where modules are looked for."""
    home = str(Path(__file__).resolve().parents[2])
    return [sys.executable, "-P", "-c", START, home, "-m", module, *map(str, arguments)]
