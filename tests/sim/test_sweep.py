"""What a sweep runs. Knows: options as text. Does not know: what is simulated."""

from __future__ import annotations

import pytest

from quire.errors import InvalidSetting
from quire.sim.sweep import combinations


def test_every_combination_in_order() -> None:
    assert list(combinations(("speed=1,2", "num-blocks=10,20"))) == [
        {"speed": 1.0, "num_blocks": 10},
        {"speed": 1.0, "num_blocks": 20},
        {"speed": 2.0, "num_blocks": 10},
        {"speed": 2.0, "num_blocks": 20},
    ]
    assert list(combinations(())) == [{}]
    assert list(combinations(["scheduling-policy=fair,vllm"])) == [{"policy": "fair"}, {"policy": "vllm"}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("law=1", "cannot"),
        ("speed=fast", "no number"),
        ("speed", "no number"),
        ("num-blocks=" + "1," * 1000 + "1", "many"),
    ],
)
def test_what_cannot_be_swept_is_said(text: str, said: str) -> None:
    with pytest.raises(InvalidSetting, match=said):
        list(combinations([text]))
