"""A bar on stderr while a large model is read.

Knows: bytes done and bytes in all. Does not know: what is read.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

WORTH_A_BAR_BYTES = 64 * 2**20  # smaller models are there before a bar could be read


class LoadingBar:
    """Shown only where a person looks (a terminal) and only for a model that takes a while."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def show(self, done_bytes: int, total_bytes: int) -> None:
        """So much of so much has been read."""
        if total_bytes < WORTH_A_BAR_BYTES or not sys.stderr.isatty():
            return
        if self._progress is None:
            self._open(total_bytes)
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done_bytes)

    def close(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _open(self, total_bytes: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

        columns = ("loading ", BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task("loading", total=total_bytes)
        self._progress.start()
