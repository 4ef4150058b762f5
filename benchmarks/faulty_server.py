"""`quire serve` on a free port with any engine module: python benchmarks/faulty_server.py MODULE [MODEL]

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
    model = sys.argv[2] if len(sys.argv) > 2 else None
    sys.exit(serve(model, None, EngineSettings(), ServerSettings(port=0), module=sys.argv[1]))
