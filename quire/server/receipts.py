"""The parts of a receipt that the server's side knows, and a receipt for people.

Knows: tokenizer, template, defaults, releases. Does not know: what the engine computes with; it says so itself.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from quire.model_spec import GenerationDefaults
from quire.receipt import Receipt, short
from quire.server.speech import Spoken
from quire.text.template import ChatTemplate
from quire.text.tokenizer import Tokenizer


def server_receipt(
    release: str, tokenizer: Tokenizer, template: ChatTemplate, spoken: Spoken, defaults: GenerationDefaults
) -> Receipt:
    """What stands between a request's JSON and the engine. `release` is quire's."""
    asked = ", ".join(f"{name} {value:g}" for name, value in sorted(defaults.as_params().items()))
    detected = spoken.detected
    return Receipt.of(
        {
            "engine": release,
            "tokenizer": short(tokenizer.digest),
            "template": short(template.digest),
            "defaults": asked or "none",
            "dialect": f"{detected.tool_format} {detected.reasoning_format}",
            "grammars": _release("llguidance"),
        }
    )


def fingerprint(release: str, receipt: Receipt) -> str:
    """OpenAI's `system_fingerprint`: quire-RELEASE-DIGEST."""
    return f"quire-{release}-{short(receipt.digest)}"


def _release(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
