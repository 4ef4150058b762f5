"""What is told of an engine's looks at itself: the metrics, and a line in the log where something is wrong.

Knows: findings, in names and numbers. Does not know: what is looked at (`engine/examiner.py`), or who asks for health.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from quire.events import Examined
from quire.observe import log
from quire.observe.metrics import Metrics


def telling_of_looks(metrics: Metrics) -> Callable[[Examined], None]:
    """What `EngineClient.on_examined` calls."""
    logger = log.get("engine")
    said: set[str] = set()  # it is found again at every look

    def tell(examined: Examined) -> None:
        metrics.on_examined(examined)
        if examined.outcome == "begun":
            said.clear()
        if examined.ailment in said:
            return
        if examined.ailment:
            said.add(examined.ailment)
            log.say(
                *(logger, logging.CRITICAL, "engine ails, it is not ready any more"),
                check=examined.check,
                why=examined.ailment,
            )
        elif examined.outcome == "differs":
            log.say(logger, logging.WARNING, "engine differed from itself once", check=examined.check)

    return tell
