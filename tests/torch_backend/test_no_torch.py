"""A CPU machine never pays for the GPU backend. Knows: what is loaded. Does not know: any op."""

from __future__ import annotations

import subprocess
import sys

SERVED = """
import sys
import quire, quire.cli.main, quire.server.app, quire.engine.__main__, quire.ops.open_device
from quire.llm import LLM
from quire.request import SamplingParams
assert LLM(threads=1).generate("Hello", SamplingParams(max_tokens=2))[0].outputs[0].token_ids
found = sorted(name for name in sys.modules if name.split(".")[0] in ("torch", "triton", "transformers"))
assert not found, found
"""


def test_importing_and_serving_on_a_cpu_loads_no_torch() -> None:
    subprocess.run([sys.executable, "-c", SERVED], check=True, timeout=120)
