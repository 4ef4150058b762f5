"""Comparisons spread over processes: most of their time on a GPU is the compiler's, which uses one core a process.

A task has a process of its own there, so that one which loses the device harms no other. On a CPU tasks run one after
the other in this process.

Knows: processes. Does not know: what a task compares.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

from benchmarks.gpu.context import Context
from benchmarks.gpu.rows import Row, Writer

MOST = 8  # each holds a CUDA context of half a gigabyte, on the host too


def number(context: Context) -> int:
    """Processes at once."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(min(cores // 2, MOST), 1) if context.is_gpu else 1


def spread(context: Context, task: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> list[list[Row]]:
    """The rows that `task(context, *each)` writes, for each of `arguments`. One whose process dies has a row that says
    so."""
    if not context.is_gpu:
        return [called(task, context.device, context.tiny, context.rows.part, each) for each in arguments]
    with ThreadPoolExecutor(number(context)) as pool:
        return list(pool.map(lambda each: alone(task, context, each), arguments))


def alone(task: Callable[..., None], context: Context, arguments: tuple[Any, ...]) -> list[Row]:
    """In a process of its own: one that dies breaks no pool but its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        try:
            return pool.submit(called, task, context.device, context.tiny, context.rows.part, arguments).result()
        except BrokenProcessPool:
            why = "the process of these comparisons died"
            return [Row(context.rows.part, " ".join(map(str, arguments)), why=why, failed=True)]


def called(task: Callable[..., None], device: str, tiny: bool, part: str, arguments: tuple[Any, ...]) -> list[Row]:
    """In the task's process."""
    rows = Writer(part, None, lambda text: None, judged=False)
    task(Context(device, tiny, 0.0, rows), *arguments)
    return rows.rows


def together(rows: Writer, name: str, found: Sequence[list[Row]]) -> None:
    """One row of what several tasks counted."""
    every = [row for each in found for row in each]
    dead = [row.why for row in every if row.failed]
    counted = [row for row in every if not row.failed]
    wrong = sum(int(row.got or 0) for row in counted) + len(dead)
    num_all = sum(int(row.unit.rsplit(" ", 1)[1]) for row in counted) + len(dead)
    rows.check(name, wrong, num_all, "; ".join([*dead, *(row.why for row in counted if row.why)][:3]))
