"""Compile every Triton kernel for a GPU that is not here, and tell what the compiler made of it.

    python benchmarks/triton_compile.py                     the kernels of Llama-3.1-8B's steps, for sm_90
    python benchmarks/triton_compile.py --quick             one kernel of each op
    python benchmarks/triton_compile.py --json FILE         the figures, as JSON

The launchers run as they would, with tensors on the CPU; what they would launch is compiled (by Triton and the `ptxas`
that it carries) and not run. A row tells registers a thread, bytes spilt, bytes of shared memory, and how many
instructions of the kinds that matter stand in it: asynchronous copies, and products of a warp group or of a warp. Met
is: everything compiles, and nothing spills more than `MOST_SPILT_BYTES`. Needs triton and torch; no GPU, no driver.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.pop("TRITON_INTERPRET", None)

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

MOST_SPILT_BYTES = 64
HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 4096, 14336, 32, 8, 128, 128256


class Compiler:
    """Takes the place of launching."""

    def __init__(self, capability: int, say: Callable[[str], None]) -> None:
        self.rows: list[dict[str, Any]] = []
        self._target = GPUTarget("cuda", capability, 32)
        self._say, self._what, self._seen = say, "", set[str]()
        self._dump = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"

    def install(self) -> None:
        """A driver without a GPU, and `run` that only compiles."""
        triton.runtime.driver.set_active(
            SimpleNamespace(
                get_current_device=lambda: 0, get_current_stream=lambda _: 0, get_current_target=lambda: self._target
            )
        )
        run = JITFunction.run

        def compile_only(kernel: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
            begin = time.perf_counter()
            compiled = run(kernel, *args, grid=grid, warmup=True, **kwargs)
            self._note(kernel.fn.__name__, compiled, time.perf_counter() - begin)

        JITFunction.run = compile_only

    def compile(self, what: str, launch: Callable[[], Any]) -> None:
        """Everything that `launch` launches."""
        self._what = what
        launch()

    def _note(self, name: str, compiled: Any, seconds: float) -> None:
        if compiled.hash in self._seen:
            return
        self._seen.add(compiled.hash)
        registers, spilt = self._resources(compiled.asm["cubin"])
        ptx = compiled.asm["ptx"]
        row = {
            "what": self._what,
            "kernel": name.lstrip("_"),
            "registers": registers,
            "spilt_bytes": spilt,
            "shared_bytes": compiled.metadata.shared,
            "warps": compiled.metadata.num_warps,
            "copies": len(re.findall(r"cp\.async\.c[ag]", ptx)),
            "wgmma": ptx.count("wgmma.mma_async"),
            "mma": ptx.count("mma.sync"),
            "seconds": round(seconds, 2),
        }
        self.rows.append(row)
        self._say(" ".join(f"{row[key]:>{width}}" for key, width in COLUMNS.items()))

    def _resources(self, cubin: bytes) -> tuple[int, int]:
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(cubin)
            file.flush()
            command = [str(self._dump), "--dump-resource-usage", file.name]
            told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = re.search(r"REG:(\d+) STACK:(\d+)", told)
        assert found is not None, told
        return int(found[1]), int(found[2])


COLUMNS = {
    "what": 34,
    "kernel": 18,
    "registers": 9,
    "spilt_bytes": 11,
    "shared_bytes": 12,
    "warps": 5,
    "copies": 6,
    "wgmma": 5,
    "mma": 4,
    "seconds": 7,
}


def steps(quick: bool) -> Iterator[tuple[str, Callable[[], Any]]]:
    """(what, launch) of every op, at the shapes of a model of 8 billion weights."""
    yield from rowwise_steps()
    yield from attention_steps(quick)
    yield from linear_steps(quick)
    yield from sample_steps(quick)


def rowwise_steps() -> Iterator[tuple[str, Callable[[], Any]]]:
    from quire.kernels.triton import embed, gather, pages, rms_norm, rope_store, round_rows, silu_mul

    x, wide = torch.empty(4, HIDDEN, dtype=torch.bfloat16), torch.empty(4, 2 * INTERMEDIATE, dtype=torch.bfloat16)
    norm, ints = torch.empty(HIDDEN), torch.zeros(4, dtype=torch.int32)
    yield "norm of 4096", lambda: rms_norm.rms_norm(x, norm, 1e-5, x)
    yield "gate of 14336", lambda: silu_mul.silu_mul(wide, wide[:, :INTERMEDIATE])
    yield "rows", lambda: gather.gather_rows(x, ints, x)
    yield "embedding, bfloat16", lambda: embed.embed(ints, make_weight("bfloat16", 128, HIDDEN), x)
    yield "embedding, int4", lambda: embed.embed(ints, make_weight("int4", 128, HIDDEN, 64), x)
    yield "rows to int8", lambda: round_rows.round_rows(x, torch.int8)
    yield "rows to fp8", lambda: round_rows.round_rows(x, torch.float8_e4m3fn)
    yield "blocks", lambda: pages.copy_blocks(make_pages("int8"), ints.long(), ints.long())
    qkv, tables = torch.empty(4, (HEADS + 2 * KV_HEADS) * HEAD_DIM, dtype=torch.bfloat16), torch.empty(9, 64)
    q, head_norm = torch.empty(4, HEADS, HEAD_DIM, dtype=torch.bfloat16), torch.empty(HEAD_DIM)
    for dtype, weight in (("bfloat16", None), ("bfloat16", head_norm), ("int8", None), ("fp8", head_norm)):
        pair = (weight, weight, 1e-6, q, torch.zeros(5, dtype=torch.int32))
        yield (
            f"rope and store, {dtype}",
            lambda dtype=dtype, pair=pair: rope_store.rope_store(
                qkv, ints, ints, tables, tables, make_pages(dtype), 0, *pair
            ),
        )


def attention_steps(quick: bool) -> Iterator[tuple[str, Callable[[], Any]]]:
    from quire.kernels.triton.attention import attention

    shapes = [(1, 1, 512), (64, 64, 128), (512, 32, 128), (2048, 2, 128)]
    for num_tokens, num_seqs, width in shapes[:1] if quick else shapes:
        for dtype in ("bfloat16", "int8", "fp8") if num_tokens < 2048 and not quick else ("bfloat16",):
            for invariant in (False, True) if dtype == "bfloat16" else (False,):
                q = torch.empty(num_tokens, HEADS, HEAD_DIM, dtype=torch.bfloat16)
                ints = [torch.zeros(size, dtype=torch.int32) for size in (num_seqs + 1, num_seqs)]
                table = torch.zeros(num_seqs, width, dtype=torch.int32)
                what = f"{num_tokens} rows of {num_seqs}, {dtype}{', invariant' * invariant}"
                yield (
                    what,
                    lambda q=q, ints=ints, table=table, dtype=dtype, invariant=invariant: attention(
                        q, make_pages(dtype), 0, *ints, table, 0.1, q, invariant
                    ),
                )


def linear_steps(quick: bool) -> Iterator[tuple[str, Callable[[], Any]]]:
    from quire.kernels.triton.linear import linear

    formats = [("bfloat16", 0), ("int8", 0), ("fp8", 0), ("int4", 128), ("int4", 64)]
    for dtype, group in formats[:2] if quick else formats:
        for num_rows in (1, 64, 512):
            for rounded in (False, True) if dtype in ("int8", "fp8") and num_rows == 512 else (False,):
                for invariant in (False, True) if num_rows == 64 else (False,):
                    weight = make_weight(dtype, HIDDEN, HIDDEN, group)
                    x, norm = torch.empty(num_rows, HIDDEN, dtype=torch.bfloat16), torch.empty(HIDDEN)
                    what = f"{num_rows} rows, {dtype} {group}{', rounded' * rounded}{', invariant' * invariant}"
                    if dtype == "bfloat16" and num_rows > 16 and not invariant:
                        continue  # cuBLAS
                    call = (x, weight, x, None, False, norm, 1e-5, False, invariant, rounded)
                    yield what, lambda call=call: linear(*call)
    gated = torch.empty(1, 2 * INTERMEDIATE, dtype=torch.bfloat16)
    call = (gated, make_weight("bfloat16", HIDDEN, INTERMEDIATE), gated[:, :HIDDEN], None, True, None, 0.0, True)
    yield "1 row, gated and added", lambda: linear(*call)
    small = torch.empty(1, 1024, dtype=torch.bfloat16)
    yield "1 row, split inputs", lambda: linear(small, make_weight("bfloat16", 1024, 1024), small)


def sample_steps(quick: bool) -> Iterator[tuple[str, Callable[[], Any]]]:
    from quire.kernels.torch.draws import Outcome, RowTensors
    from quire.kernels.triton.sample import sample

    long, ints, wide = (torch.zeros(4, dtype=dtype) for dtype in (torch.int64, torch.int32, torch.float64))
    logits, tops = torch.empty(4, VOCAB), (torch.empty(4, 5, dtype=torch.int32), torch.empty(4, 5, dtype=torch.float64))
    what = ["greedy", "temperature", "top_p", "penalties, masks and log probabilities"]
    for level, name in enumerate(what[-1:] if quick else what, 3 if quick else 0):
        rows = RowTensors(
            long, long, wide, long, wide, wide, torch.ones(4), torch.ones(4), ints, ints, ints, ints, ints, ints,
            ints, ints, torch.ones(4), True, level > 0, level > 1, level > 2, level > 2, 5,
        )  # fmt: skip
        extra = (torch.zeros(4, VOCAB, dtype=torch.int32), torch.zeros(4, VOCAB // 32, dtype=torch.int32))
        out = Outcome(ints, ints, wide, ints, *tops)
        yield (
            name,
            lambda rows=rows, out=out, level=level, extra=extra: sample(
                logits, rows, out, *(extra if level > 2 else (None, None))
            ),
        )


def make_weight(dtype: str, n: int, k: int, group: int = 0) -> Any:
    from quire.kernels.torch.weight import TORCH_DTYPES, Weight

    data = torch.empty(n, k // 2 if dtype == "int4" else k, dtype=TORCH_DTYPES[dtype])
    scales = None if dtype == "bfloat16" else torch.empty(n, k // group if group else 1, dtype=torch.bfloat16)
    return Weight(data, dtype, n, k, scales, None, group)


def make_pages(dtype: str) -> Any:
    from quire.kernels.torch.pages import PAGE_DTYPES, Pages

    data = torch.empty(1, 2, 4, 16, KV_HEADS, HEAD_DIM, dtype=PAGE_DTYPES[dtype])
    return Pages(data, torch.empty(data.shape[:-1]) if dtype in ("int8", "fp8") else None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one kernel of each op")
    parser.add_argument("--capability", type=int, default=90, help="of the GPU: 80, 89, 90, 100 (default: 90)")
    parser.add_argument("--json", metavar="FILE", help="write the rows there")
    options = parser.parse_args()
    print(" ".join(f"{name.removesuffix('_bytes'):>{width}}" for name, width in COLUMNS.items()))
    compiler = Compiler(options.capability, print)
    compiler.install()
    for what, launch in steps(options.quick):
        compiler.compile(what, launch)
    worst = max(row["spilt_bytes"] for row in compiler.rows)
    met = worst <= MOST_SPILT_BYTES
    print(f"{len(compiler.rows)} kernels for sm_{options.capability}; most spilt {worst} of {MOST_SPILT_BYTES} bytes: "
          f"{'met' if met else 'MISSED'}")  # fmt: skip
    if options.json:
        found = {"capability": options.capability, "triton": triton.__version__, "met": met, "kernels": compiler.rows}
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
