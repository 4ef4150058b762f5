"""What the front process has open: what must come back to where it was when everybody has gone.

Knows: the service's tables, asyncio's tasks, this process's descriptors. Does not know: who reads the numbers.
"""

from __future__ import annotations

import asyncio
import os

from quire.server.service import Service

DESCRIPTORS = "/proc/self/fd"


def num_open(service: Service) -> dict[str, int]:
    """By kind: requests inside, streams of the engine, tasks of the running loop, descriptors (without /proc none)."""
    return {
        "requests": service.door.num_inside,
        "streams": service.client.num_open,
        "tasks": len(asyncio.all_tasks()),
        "descriptors": len(os.listdir(DESCRIPTORS)) - 1 if os.path.isdir(DESCRIPTORS) else 0,  # without its own
    }
