"""What is told of a lost engine (a line in the log for its loss, one for its recovery, and the metrics), and of a lost
grammar process (one line).

Knows: the loss, in names and numbers. Does not know: how it is noticed or mended (`engine/supervisor.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from quire.events import EngineLoss
from quire.observe import log
from quire.observe.metrics import Metrics


def telling(metrics: Metrics) -> Callable[[EngineLoss], None]:
    """What `EngineClient.on_loss` calls."""
    logger = log.get("engine")

    def tell(loss: EngineLoss) -> None:
        metrics.on_loss(loss)
        level, event = logging.ERROR, "engine lost"
        if loss.is_final:
            level, event = logging.CRITICAL, "engine given up, requests are refused"
        elif loss.seconds is not None:
            level, event = logging.WARNING, "engine replaced"
        log.say(
            logger,
            level,
            event,
            cause=loss.cause,
            how=loss.how,
            suspects=loss.num_suspects or None,
            killed_by=loss.culprit,
            replayed=None if loss.seconds is None else loss.num_replayed,
            seconds=loss.seconds,
            remedy=loss.remedy or None,
        )

    return tell


def tell_of_recall(num_requests: int) -> None:
    """What `EngineClient.on_recall` calls."""
    logger = log.get("engine")
    log.say(logger, logging.WARNING, "grammar process lost, its answers go on with another", requests=num_requests)
