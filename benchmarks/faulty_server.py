"""`quire serve` on a free port with any engine module:

    python benchmarks/faulty_server.py MODULE [MODEL] [SETTING=NUMBER ...]

The module is looked for beside this file first.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from quire.cli.serve import serve
from quire.settings import EngineSettings, ServerSettings

if __name__ == "__main__":
    here = str(Path(__file__).resolve().parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    named = [word for word in sys.argv[2:] if "=" not in word]
    options = dict(word.split("=", 1) for word in sys.argv[2:] if "=" in word)
    engine = EngineSettings(**{name: float(value) for name, value in options.items()})  # type: ignore[arg-type]
    sys.exit(serve(named[0] if named else None, None, engine, ServerSettings(port=0), module=sys.argv[1]))
