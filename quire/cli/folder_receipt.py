"""The server's side of a receipt for those who serve nothing: what a model's folder says by itself.

Knows: which files of a folder count. Does not know: what an engine adds.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from quire import __version__
from quire.model_spec import read_generation_defaults
from quire.receipt import Receipt
from quire.server.receipts import server_receipt
from quire.server.speech import Spoken
from quire.text.template import ChatTemplate
from quire.text.tokenizer import Tokenizer


def folder_receipt(folder: Path) -> Receipt:
    """The parts as a server started without options of its own would have them. Raises `StartError`."""
    tokenizer = Tokenizer.from_folder(folder)
    template = ChatTemplate.from_folder(folder, now=datetime.now)
    spoken = Spoken.of(template, tokenizer, "auto", "auto")
    return server_receipt(__version__, tokenizer, template, spoken, read_generation_defaults(folder))
