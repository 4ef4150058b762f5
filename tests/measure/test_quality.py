"""`measure/quality.py`: a model agrees with itself, coarser formats less than finer ones; sums are what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from quire.errors import InvalidSetting
from quire.llm import BUNDLED
from quire.measure.agreement import Agreement, log_softmax
from quire.measure.quality import measure_quality
from quire.measure.variants import default_variants, parse_variant
from quire.measure.windows import Window, cut
from quire.ops.device import Device
from quire.text.tokenizer import Tokenizer

TEXT = (
    "Once upon a time there was a small dog. The dog lived in a green house with a girl. One day the girl said: where"
    " is my ball? The dog ran into the garden and found the ball under a tree. They were happy and went home."
)


def test_windows_score_every_id_once_with_enough_before_it() -> None:
    ids = list(range(100, 150))
    windows = cut(ids, 20, 8)
    scored = [target for window in windows for target in window.targets]
    assert scored == list(range(101, 101 + len(scored)))
    assert all(len(window.ids) == 20 for window in windows)
    assert all(window.first >= 12 for window in windows[1:])
    assert len(ids) - 1 - len(scored) < 8


def test_windows_begin_with_the_beginning_of_text() -> None:
    windows = cut(list(range(100, 150)), 20, 8, first_id=7)
    assert all(window.ids[0] == 7 for window in windows)
    scored = [target for window in windows for target in window.targets]
    assert scored == list(range(100, 100 + len(scored)))


def test_a_short_text_is_one_window_and_an_empty_one_is_refused() -> None:
    assert cut([1, 2, 3], 20, 8) == [Window((1, 2, 3), 1)]
    with pytest.raises(ValueError, match="fewer than two"):
        cut([1], 20, 8)
    with pytest.raises(ValueError, match="stride"):
        cut([1, 2, 3], 3, 3)


def test_agreement_is_what_its_formulas_say() -> None:
    rng = np.random.default_rng(0)
    base_RV, other_RV = (log_softmax(rng.standard_normal((50, 9), np.float32) * 2) for _ in range(2))
    targets_R = rng.integers(0, 9, 50)
    count = Agreement()
    count.add(base_RV[:20], other_RV[:20], targets_R[:20])
    count.add(base_RV[20:], other_RV[20:], targets_R[20:])
    figures = count.figures()
    pairs = zip(base_RV, other_RV, strict=True)
    kl = np.mean(
        [sum(math.exp(b) * (b - o) for b, o in zip(base_V, other_V, strict=True)) for base_V, other_V in pairs]
    )
    nll = -np.mean([row[target] for row, target in zip(other_RV, targets_R, strict=True)])
    assert math.isclose(figures["kl_divergence"], kl)
    assert math.isclose(figures["perplexity"], math.exp(nll))
    ordered = np.sort(base_RV, axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > 0.5
    same = base_RV.argmax(axis=1) == other_RV.argmax(axis=1)
    assert figures["top1_percent"] == 100 * same.mean()
    assert figures["clear_rows_that_differ"] == (clear & ~same).sum()


def test_names_of_variants() -> None:
    variant = parse_variant("int4-g32a/int8-g128")
    assert (variant.layers.dtype, variant.layers.group_size, variant.layers.symmetric) == ("int4", 32, False)
    assert (variant.head.dtype, variant.head.group_size, variant.kv_dtype) == ("int8", 128, "bfloat16")
    assert parse_variant("float32").kv_dtype == "float32"
    assert parse_variant("int8+kv-float32").kv_dtype == "float32"
    assert len({variant.name for variant in default_variants()}) == len(default_variants())
    for wrong in ("int3", "int8-g48", "int8-g128a", "bfloat16-g32", "int8+kv-int2", "", "int8/", "int8/int8/int8"):
        with pytest.raises(InvalidSetting, match="variant"):
            parse_variant(wrong)


def test_coarser_formats_are_further_from_bfloat16() -> None:
    tokenizer = Tokenizer.from_folder(BUNDLED)
    windows = cut(tokenizer.encode(TEXT), 48, 24)
    variants = [parse_variant(name) for name in ("bfloat16", "float32", "int8-g128", "int4-g32/int8-g128", "int4")]
    told: list[tuple[int, int]] = []
    with Device(2) as device:
        result = measure_quality(BUNDLED, device, variants, windows, lambda *each: told.append(each))
    same, exact, int8, int4, coarse = result["rows"]
    assert told[-1] == (len(windows), len(windows))
    assert same["kl_divergence"] == 0
    assert same["top1_percent"] == 100
    assert same["perplexity"] == result["bfloat16_perplexity"]
    assert 0 < exact["kl_divergence"] < int8["kl_divergence"] < int4["kl_divergence"] < coarse["kl_divergence"]
    assert int8["top1_percent_where_clear"] == 100
