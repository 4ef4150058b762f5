"""`quire bench quality`: perplexity, KL divergence and top-1 agreement of number formats against bfloat16.

Knows: where the text comes from, and how the figures are shown. Does not know: how they are measured
(`measure/quality.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quire.cli.resolve import resolve
from quire.errors import InvalidSetting
from quire.hardware import probe
from quire.llm import LLM
from quire.measure.quality import measure_quality
from quire.measure.variants import Variant, default_variants, parse_variant
from quire.measure.windows import Window, cut
from quire.model_spec import ModelSpec, read_model_spec
from quire.ops.device import Device
from quire.request import SamplingParams
from quire.text.tokenizer import Tokenizer

LONGEST_WINDOW = 1024
HEAD = f"{'weights/head, cache':<26}{'perplexity':>11}{'change':>10}{'KL':>10}{'largest':>9}{'top-1':>9}{'clear':>10}"


@dataclass(frozen=True, slots=True)
class Asked:
    """The command's options as they were typed."""

    model: str | None
    revision: str | None
    text: Path | None
    tokens: int
    window: int | None
    stride: int | None
    variants: str
    threads: int | None

    def chosen(self) -> tuple[Variant, ...]:
        """The variants named, or the usual ones. Raises `InvalidSetting`."""
        names = [part.strip() for part in self.variants.split(",") if part.strip()]
        return tuple(parse_variant(name) for name in names) or default_variants()

    def windows(self, folder: Path, spec: ModelSpec) -> tuple[list[Window], str]:
        """The text as windows, and what text it is. Raises `InvalidSetting`."""
        length = self.window or min(spec.max_position_embeddings, LONGEST_WINDOW)
        stride = self.stride or length // 2
        if not 3 <= length <= spec.max_position_embeddings or not 1 <= stride <= length - 2:
            raise InvalidSetting(
                "--window and --stride do not fit",
                got=f"{length} and {stride}",
                allowed=f"a window of 3 to {spec.max_position_embeddings} tokens, and a stride 2 shorter at least",
            )
        if self.text is None:
            return cut(_own_text(folder, self.tokens, length), length, stride), "drawn by the model at temperature 1"
        tokenizer = Tokenizer.from_folder(folder)
        ids = tokenizer.encode(_read(self.text), add_special_tokens=False)[: self.tokens]
        marked = tokenizer.encode("a")[: len(tokenizer.encode("a")) - len(tokenizer.encode("a", False))]
        if len(ids) < 2:
            raise InvalidSetting("--text has fewer than two tokens", got=str(self.text))
        return cut(ids, length, stride, marked[0] if marked else None), self.text.name


def run(asked: Asked, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure; the figures as plain data. Raises `QuireError`."""
    variants = asked.chosen()
    found, hardware = resolve(asked.model, asked.revision), probe()
    windows, text = asked.windows(found.folder, read_model_spec(found.folder))
    say(f"{found.name}: {len(windows)} windows of {len(windows[0].ids)} tokens, text {text}")
    with Device(asked.threads or hardware.num_cores) as device:
        result = measure_quality(found.folder, device, variants, windows)
        return {"model": found.name, "text": text, "isa": device.isa, "cpu": hardware.cpu_model} | result


def lines(result: dict[str, Any]) -> list[str]:
    """The figures as a table."""
    told = f"{result['scored_tokens']:,} tokens scored; clear: the {result['clear_tokens']:,} where bfloat16's first"
    shown = [told + " token leads by more than 0.5", HEAD]
    shown.append(f"{'bfloat16':<26}{result['bfloat16_perplexity']:>11.4f}")
    for row in result["rows"]:
        shown.append(
            f"{row['variant']:<26}{row['perplexity']:>11.4f}{row['perplexity_change_percent']:>+8.3f} %"
            f"{row['kl_divergence']:>10.2e}{row['largest_kl_divergence']:>9.3f}{row['top1_percent']:>7.2f} %"
            f"{row['top1_percent_where_clear']:>8.3f} %"
        )
    return shown


def _own_text(folder: Path, num_tokens: int, length: int) -> list[int]:
    """Answers of the model to nothing but the beginning of text, seeds 0, 1, ..., one behind the other."""
    llm = LLM(folder, dtype="bfloat16", max_model_len=length)
    try:
        first = llm.spec.bos_id if llm.spec.bos_id is not None else 0
        count = max(1, -(-2 * num_tokens // length))
        params = [SamplingParams(temperature=1.0, seed=seed, max_tokens=length - 1) for seed in range(count)]
        answers = llm.generate([[first]] * count, params)
        ids = [token for answer in answers for token in (first, *answer.outputs[0].token_ids)]
        return ids[:num_tokens]
    finally:
        llm.close()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise InvalidSetting("--text cannot be read as UTF-8", got=f"{path}: {problem}") from problem
