"""The child of `start.py`: loads a folder as a server's engine does, draws one token, says when what was done.

    python -m benchmarks.gpu.first_token FOLDER --device cuda

Knows: how an engine is built. Does not know: who counts the seconds.
"""

from __future__ import annotations

import argparse
import json
import time

BEGIN = time.perf_counter()


def main() -> None:
    """One line of JSON: seconds since this module was read at each mark, and seconds after the first token."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    marks = {}

    from pathlib import Path

    from quire.engine.build import build_engine
    from quire.hardware import probe
    from quire.model_spec import read_model_spec
    from quire.plan import plan
    from quire.request import Request, SamplingParams
    from quire.settings import EngineSettings

    folder = Path(options.folder)
    small = {"kv_cache_memory_bytes": 32 * 2**20, "threads": 2} if options.device != "cuda" else {}
    settings = EngineSettings(device=options.device, max_model_len=256, **small)  # type: ignore[arg-type]
    planned = plan(settings, probe(), read_model_spec(folder), str(folder))
    marks["imported and planned"] = time.perf_counter() - BEGIN
    engine = build_engine(planned, folder).engine
    marks["ready"] = time.perf_counter() - BEGIN
    engine.add(Request("r", (5, 6, 7, 8), SamplingParams(temperature=0.0, seed=0, max_tokens=1, ignore_eos=True)), 0.0)
    while not any(delta.tokens for delta in engine.advance(0.0) or ()):
        pass
    first = time.perf_counter()
    marks["first token"] = first - BEGIN
    print(json.dumps({"marks": marks, "after_s": time.perf_counter() - first}), flush=True)


if __name__ == "__main__":
    main()
