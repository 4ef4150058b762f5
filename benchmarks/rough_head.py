"""A head in two planes beside one of int8: decode steps of both, in turns, in one process.

    python benchmarks/rough_head.py MODEL [--rows 1 8 32] [--seconds 6] [--json]

Layers in int4 (groups of 32) in both; a step is what a server replays: one token a sequence, up to the logits. Targets:
one row at least 1.10 times as fast, 32 rows at least 0.98. MODEL is a checkpoint's folder with a vocabulary of 32,768
and more.

Knows: models, recorded steps. Does not know: servers, sampling.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from quire import models
from quire.hardware import probe
from quire.layers.forward import Forward
from quire.model_spec import read_model_spec
from quire.models import Model
from quire.ops.arena import Arena
from quire.ops.device import Device
from quire.ops.kv_cache import KVCache
from quire.ops.program import Program
from quire.precision import Precision
from quire.weights.checkpoint import Checkpoint

HEADS = {"int8": Precision("int8"), "int4x2": Precision("int4x2")}
TARGETS = {1: 1.10, 32: 0.98}  # of the ratio of times; rows that are not here have none
HELD, BLOCK, BLOCKS_A_ROW = 100, 16, 8


def measure(folder: Path, rows: list[int], seconds: float, threads: int) -> list[dict[str, Any]]:
    """For each number of rows both steps' median in milliseconds, and the median of the pairs' ratios."""
    spec = read_model_spec(folder)
    with Device(threads) as device:
        arena = Arena()
        kv = KVCache(spec.num_layers, max(rows) * BLOCKS_A_ROW, BLOCK, spec.num_kv_heads, spec.head_dim, "bfloat16")
        loaded = {
            name: models.load(
                spec, Checkpoint.open(folder), device, Precision("int4", 32), head, max_positions=HELD + BLOCK
            )
            for name, head in HEADS.items()
        }
        for model in loaded.values():
            model.reserve(arena, max(rows), max(rows))
        return [
            _compare(
                {name: _recorded(model, _step(device, arena, kv, count)) for name, model in loaded.items()},
                count,
                seconds,
            )
            for count in rows
        ]


def _step(device: Device, arena: Arena, kv: KVCache, rows: int) -> Forward:
    tables_SB = np.arange(rows * BLOCKS_A_ROW, dtype=np.int32).reshape(rows, BLOCKS_A_ROW)
    positions_T = np.full(rows, HELD, np.int32)
    return Forward(
        device=device,
        arena=arena,
        ids_T=np.arange(3, rows + 3, dtype=np.int32),
        positions_T=positions_T,
        slots_T=tables_SB[:, HELD // BLOCK] * BLOCK + HELD % BLOCK,
        query_starts_S1=np.arange(rows + 1, dtype=np.int32),
        seq_lens_S=positions_T + 1,
        block_tables_SB=tables_SB,
        kv=kv,
        rows_R=np.arange(rows, dtype=np.int32),
    )


def _recorded(model: Model, forward: Forward) -> Program:
    program = Program(forward.device)
    with program.recording():
        model.forward(forward)
    return program


def _compare(programs: dict[str, Program], rows: int, seconds: float) -> dict[str, Any]:
    times: dict[str, list[float]] = {name: [] for name in programs}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["int8"]) < 5:
        for name, program in programs.items():
            start = time.perf_counter()
            program.replay()
            times[name].append(1000 * (time.perf_counter() - start))
    ratio = median(one / other for one, other in zip(times["int8"], times["int4x2"], strict=True))
    return {
        "rows": rows,
        **{f"{name}_ms": round(median(each), 3) for name, each in times.items()},
        "pairs": len(times["int8"]),
        "ratio": round(ratio, 4),
        "target": TARGETS.get(rows),
        "met": rows not in TARGETS or ratio >= TARGETS[rows],
    }


def main() -> int:
    """0 when every target is met."""
    parser = argparse.ArgumentParser(description="Decode steps with a head in two planes beside one of int8.")
    parser.add_argument("model", type=Path, help="folder of a checkpoint")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 32], help="sequences of a step")
    parser.add_argument("--seconds", type=float, default=6.0, help="for each number of rows")
    parser.add_argument("--threads", type=int, default=probe().num_cores)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    asked = parser.parse_args()
    found = measure(asked.model, asked.rows, asked.seconds, asked.threads)
    if asked.json:
        print(json.dumps({"model": asked.model.name, "threads": asked.threads, "rows": found}))
    else:
        for row in found:
            told = "" if row["target"] is None else f"  {'met' if row['met'] else 'MISSED'}: {row['target']:.2f} wanted"
            print(
                f"{row['rows']:>3} rows: int8 {row['int8_ms']:.2f} ms, int4x2 {row['int4x2_ms']:.2f} ms,"
                f" {row['ratio']:.3f} times as fast ({row['pairs']} pairs){told}"
            )
    return 0 if all(row["met"] for row in found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
