"""A rolling restart from the old server's side: is there a successor, and what is he lent until he answers.

Knows: our command line, the plan's memory, the request log. Does not know: signals, connections, how we leave.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from quire.cli.successor import Successor, with_options
from quire.plan import Plan
from quire.server.request_log import RequestLog

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Handover:
    """How a successor is started: with the same `command`, and as much KV cache as we have, though we are there too."""

    command: Sequence[str]
    plan: Plan
    log: RequestLog | None = None

    async def run(self, listener: socket.socket, say: Callable[[str], None]) -> Successor | None:
        """The one that answers at `listener` from now on; None if there is none, and we go on as before."""
        if os.getpid() == 1:
            say("restart  refused: process 1 cannot leave its container to a successor; start another container")
            return None
        if self.log is not None:
            self.log.share()
        successor: Successor | None = None
        answers = False
        try:
            successor = Successor(self._command(), listener)
            memory = f"{self.plan.total_bytes / MIB:,.0f} MiB"
            say(f"restart  process {successor.process.pid} starts; until this one has left, {memory} more are in use")
            answers = await successor.answers()
            return successor if answers else None
        except OSError as problem:
            say(f"restart  failed: {self.command[0]}: {problem.strerror}; this server goes on")
            return None
        finally:
            if not answers:
                await self._take_back(successor, say)

    async def _take_back(self, successor: Successor | None, say: Callable[[str], None]) -> None:
        if successor is not None:
            code = await successor.leave()
            say(f"restart  failed: the successor ended with exit code {code} before it answered; this server goes on")
        if self.log is not None:
            self.log.reclaim()

    def _command(self) -> list[str]:
        """What is free now is not what was free then, but the cache is to have its size."""
        is_given = any(Path(word).name.startswith("--kv-cache-memory-bytes") for word in self.command)
        own = {} if is_given else {"--kv-cache-memory-bytes": str(self.plan.kv_bytes)}
        return with_options(self.command, own)
