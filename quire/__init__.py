"""quire: a serving engine for large language models. The front door: `LLM`, its parameters, the errors.

Knows: where the public names live. Does not know: anything else; importing it loads nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quire.beams import BeamSearchParams
from quire.errors import QuireError
from quire.form import StructuredOutputsParams
from quire.sampling_params import RepetitionDetectionParams, SamplingParams

if TYPE_CHECKING:
    from quire.llm import LLM
    from quire.sampling.processors import LogitsProcessor

__version__ = "0.1.0"
__all__ = [
    "BeamSearchParams",
    "LLM",
    "LogitsProcessor",
    "QuireError",
    "RepetitionDetectionParams",
    "SamplingParams",
    "StructuredOutputsParams",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name == "LLM":
        from quire.llm import LLM

        return LLM
    if name == "LogitsProcessor":
        from quire.sampling.processors import LogitsProcessor

        return LogitsProcessor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
