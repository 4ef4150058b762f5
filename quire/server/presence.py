"""Work for a client as long as it is there.

Knows: ASGI's word for a client that has gone. Does not know: what is worked on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

T = TypeVar("T")


async def while_there(receive: Receive, work: Coroutine[Any, Any, T], on_gone: Callable[[], None] | None = None) -> T:
    """What `work` returns or raises; `ClientDisconnect` if its client goes before.

    Then `on_gone` is called, and `work` cancelled. The request's body must have been read: what else comes is thrown
    away.
    """
    working, gone = asyncio.create_task(work), asyncio.create_task(_until_gone(receive))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            if on_gone is not None:
                on_gone()
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, gone):
            task.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
