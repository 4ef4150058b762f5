"""The model card: the text of `model_card.md` with the figures filled in.

Knows the page; measures nothing.
"""

from __future__ import annotations

from pathlib import Path

from training.model import Llama
from training.train import Schedule

CARD_PATH = Path(__file__).with_name("model_card.md")


def write_card(folder: Path, model: Llama, table: str) -> None:
    """README.md of the model's folder."""
    shape, schedule = model.shape, Schedule()
    slots = {
        "table": table,
        "parameters": f"{model.num_parameters() / 1e6:.2f} million",
        "layers": shape.num_layers,
        "hidden": shape.hidden_size,
        "heads": shape.num_heads,
        "kv_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "intermediate": shape.intermediate_size,
        "vocab": shape.vocab_size,
        "steps": schedule.num_steps,
        "tokens": f"{schedule.num_tokens / 1e6:.1f} million",
        "long_every": schedule.long_every,
    }
    text = CARD_PATH.read_text(encoding="utf-8")
    for name, value in slots.items():
        text = text.replace("{" + name + "}", str(value))
    (folder / "README.md").write_text(text, encoding="utf-8")
