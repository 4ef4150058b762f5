"""How many connections a process may have, by the files that it may have open; that bound is raised where it can be.

Knows: the operating system's limit on open files. Does not know: what a connection is for.
"""

from __future__ import annotations

import resource

RESERVED = 256  # files that are no connections: pipes, logs, the model's, and those that are told of the bound


def room_for(num_connections: int) -> int:
    """`num_connections`, or as many of them as may be open; at least 1. Raises the soft limit if it is too low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = num_connections + RESERVED
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return num_connections
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(1, min(num_connections, allowed - RESERVED))
