"""Keys and certificates that change while the server runs: read again on SIGHUP, and when their files have changed.

Knows: files' stamps, and what can be read again. Does not know: what is in the files.

A file that is being written is left alone: it is read once it has looked the same twice. One that cannot be used
changes nothing, and is said once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quire.errors import InvalidSetting

LOOK_S = 2.0
Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass(slots=True)
class Kept:
    """Something that was read from `paths`. `reload` raises `InvalidSetting` and changes nothing if they are no good;
    `describe` says in a few words what there is now."""

    what: str
    paths: tuple[Path, ...]
    reload: Callable[[], None]
    describe: Callable[[], str]
    taken: Stamp = field(init=False)
    seen: Stamp = field(init=False)

    def __post_init__(self) -> None:
        self.taken = self.seen = self.stamp()

    def stamp(self) -> Stamp:
        """What tells a changed file: Kubernetes' links too, which lead to another inode."""
        return tuple([_stamp(path) for path in self.paths])

    def has_settled(self) -> bool:
        """True if the files differ from those taken, and did not change since the last look."""
        before, self.seen = self.seen, self.stamp()
        return self.seen == before != self.taken


class Reloading:
    """Everything that can be read again. `say` tells the operator."""

    def __init__(self, kept: Sequence[Kept], say: Callable[[str], None]) -> None:
        self._kept = tuple(kept)
        self._say = say

    @property
    def has_any(self) -> bool:
        """False if there is nothing to read again."""
        return bool(self._kept)

    def order(self) -> None:
        """SIGHUP: read everything again, now."""
        for each in self._kept:
            self._reload(each)

    def look(self) -> None:
        """Read again what has changed and come to rest."""
        for each in self._kept:
            if each.has_settled():
                self._reload(each)

    async def watch(self) -> None:
        """Look until cancelled."""
        while self._kept:
            await asyncio.sleep(LOOK_S)
            self.look()

    def _reload(self, each: Kept) -> None:
        each.taken = each.seen = each.stamp()
        try:
            each.reload()
        except InvalidSetting as problem:
            self._say(f"WARNING  the {each.what} stay as they were: {problem.message}")
            return
        self._say(f"{each.what:<8} {each.describe()}, read again")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
