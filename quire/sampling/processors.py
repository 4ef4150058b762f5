"""Logits processors: a caller's own functions between the model and the draw, for the offline API.

Knows: how one is called, and what may come back. Does not know: what it is for, or how a token is chosen.

Legend: R rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from quire.step import NOTHING_ALLOWED, Draw


class LogitsProcessor(Protocol):
    """What `SamplingParams.logits_processors` take: any callable of this shape.

    `output_ids` are the answer's tokens so far (a copy). `logits_V` (float32 [V]) is a copy of this row's logits, to be
    changed in place (then None comes back) or answered with another row of that shape. Minus infinity forbids a token;
    NaN and plus infinity are errors. Several processors are called in their order, each with what the one before left.
    Then come penalties, `logit_bias`, `min_tokens`, bad words, allowed ids, the form of structured outputs, and the
    draw. Log probabilities are of the logits as the model gave them.

    Samples that share their first draw (n > 1) are asked for together, once. An exception ends that request, with a
    `GenerationFailed` that names processor and exception, and no other one.
    """

    def __call__(self, output_ids: Sequence[int], logits_V: npt.NDArray[np.float32]) -> npt.ArrayLike | None:
        """The row that takes the place of `logits_V`, or None if that was changed in place."""
        ...


def process(logits_V: np.ndarray, draw: Draw) -> tuple[np.ndarray, str | None]:
    """What the draw's processors make of one row, which stays as it is; or the row, and what went wrong."""
    row_V = logits_V.copy()
    output_ids = tuple(draw.history[draw.num_prompt :])
    for processor in draw.params.logits_processors or ():
        try:
            made = processor(output_ids, row_V)
            row_V = row_V if made is None else _checked(made, len(logits_V))
        except Exception as error:  # noqa: BLE001 - a stranger's code: whatever it raises ends its own request alone
            return logits_V, f"logits processor {_name(processor)} raised {type(error).__name__}: {error}"
        peak = row_V.max()
        if not np.isfinite(peak):  # NaN counts as largest
            problem = "gave NaN or infinity" if peak != -np.inf else f"left nothing: {NOTHING_ALLOWED}"
            return logits_V, f"logits processor {_name(processor)} {problem}"
    return row_V, None


def _checked(made: npt.ArrayLike, vocab_size: int) -> np.ndarray:
    row = np.array(made, np.float32)
    if row.shape != (vocab_size,):
        raise ValueError(f"a row of shape {row.shape} came back, [{vocab_size}] was expected")
    return row


def _name(processor: Any) -> str:
    return getattr(processor, "__qualname__", type(processor).__qualname__)
