"""What a comparison measures, by hand. Knows: laws of made-up devices. Does not know: the policies' rules."""

from __future__ import annotations

import pytest

from quire.cli.bench.savings_load import blank_prompts
from quire.errors import InvalidSetting
from quire.events import CacheUse
from quire.request import Request, SamplingParams, Sequence
from quire.scheduling.cost import Coefficients
from quire.scheduling.limits import SchedulerLimits
from quire.sim.asked import device_of
from quire.sim.device import ModelledDevice
from quire.sim.named import DEVICES
from quire.sim.savings.asks import Ask
from quire.sim.savings.limit import alone_s, law_text, learnt_law, shared_s
from quire.sim.savings.machine import Modelled
from quire.sim.savings.meter import Meter
from quire.sim.savings.policies import Setting, policies_named, setting_of
from quire.sim.savings.serving import Serving
from quire.step import Step, Work

LAW = ModelledDevice(Coefficients(0.02, 1e-5, 5e-4, 1e-4, 1e-6, 1e-8), 8)
ASKS = [Ask(0.0, blank_prompts(number, 10 + 37 * number), 5 + 3 * number, 80) for number in range(20)]


def serve(name: str, device: ModelledDevice, asks: list[Ask], setting: Setting) -> Serving:
    serving = Serving(policies_named((name,))[0].build(setting), asks, Modelled(device))
    while serving.advance():
        pass
    serving.check()
    return serving


def test_slots_by_use() -> None:
    request = Request("0", (1,) * 10, SamplingParams(seed=0, max_tokens=9))
    sequence = Sequence(7, request, tokens=[1] * 10, num_computed=6, blocks=[0, 1, 2, 3])
    meter = Meter({"0": 13})
    use = CacheUse(num_blocks=10, num_used=4, num_cached=0, num_free=6, block_size=4, num_wasted_slots=10)
    meter.measure(use, (sequence,), Step(1, (Work(7, (1,) * 4, 6, sequence.blocks),)), 2.0)
    found = meter.use
    assert (found.held_share, found.reserved_share, found.fragmented_share) == (10 / 40, 3 / 40, 3 / 40)
    assert found.waste_share == pytest.approx(6 / 16)
    assert (meter.running_s, meter.peak_running) == (2.0, 1)


@pytest.mark.parametrize("budget", [64, 4096])
def test_one_at_a_time_takes_what_the_law_says_and_nobody_beats_the_limit(budget: int) -> None:
    setting = setting_of(
        max_num_seqs=64, max_num_batched_tokens=budget, max_model_len=1000, block_size=16, num_blocks=9999
    )
    one = serve("one", LAW, ASKS, setting)
    assert one.seconds == pytest.approx(alone_s(LAW, ASKS, budget))
    least_s = shared_s(LAW, ASKS)
    for name in ("static", "contiguous", "quire"):
        assert least_s < serve(name, LAW, ASKS, setting).seconds < one.seconds


def test_the_law_of_timed_steps_is_found_again_and_can_be_typed() -> None:
    setting = Setting(SchedulerLimits(64, 256, 1000, 16), 9999)
    timed = [each for name in ("one", "quire") for each in serve(name, LAW, ASKS, setting).timed]
    found = learnt_law(timed)
    assert all(found.seconds(shape) == pytest.approx(seconds, rel=0.08) for shape, seconds in timed)
    assert shared_s(found, ASKS) == pytest.approx(shared_s(LAW, ASKS), rel=0.1)
    assert device_of(law_text(LAW)) == LAW


def test_named_devices_are_what_their_ceilings_say() -> None:
    h200 = DEVICES["h200-llama-3.1-8b"]
    assert h200.shape.kv_token_bytes == 131072
    assert h200.device.law.fixed_s == pytest.approx(1e-3 + 16.06e9 / (0.7 * 4.3e12))
    assert 150 < h200.device.knee_tokens < 250, "operations a byte"
    assert h200.kv_bytes == pytest.approx(110.8e9, rel=0.01)
    assert DEVICES["a100-40gb-opt-13b"].shape.kv_token_bytes == pytest.approx(800 * 1024, rel=0.03)


def test_a_memory_that_is_scarce_shows_the_policies_apart() -> None:
    """On a modelled device whose memory, not its speed, is the bound: the published order."""
    asks = [Ask(0.0, blank_prompts(number, 300), 40 + number % 7, 200) for number in range(40)]
    setting = Setting(SchedulerLimits(64, 2048, 2048, 16), 512)
    seconds = {name: serve(name, LAW, asks, setting).seconds for name in ("one", "static", "contiguous", "quire")}
    assert seconds["quire"] < seconds["static"] < seconds["one"]
    assert seconds["quire"] < seconds["contiguous"] < seconds["one"]
    waste = {name: serve(name, LAW, asks, setting).meter.use.waste_share for name in ("contiguous", "quire")}
    assert waste["quire"] < 0.04 < 0.8 < waste["contiguous"]


def test_names_that_mean_nothing() -> None:
    for names, sizes in ((("best",), ()), ((), ()), (("contiguous",), (0,))):
        with pytest.raises(InvalidSetting):
            policies_named(names, sizes)
    with pytest.raises(InvalidSetting, match="no KV memory"):
        setting_of(max_num_seqs=1, max_num_batched_tokens=1, max_model_len=1, block_size=16, num_blocks=0)
