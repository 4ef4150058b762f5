"""Frames: every message comes back as it was, in any pieces; anything else is refused."""

from __future__ import annotations

import struct
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quire.engine.messages import Abort, Failed, Loading, Ready, Refused, Start, StepReport, Submit
from quire.engine.wire import KINDS, Decoder, encode
from quire.errors import InternalError
from quire.events import CacheUse, Examined, StepStats
from quire.plan import Plan, WeightBytes
from quire.precision import Precision
from quire.request import Finish, Request, SamplingParams
from quire.sampling_params import RepetitionDetectionParams
from quire.step import Delta, TokenLogprob

PLAN = Plan(
    model="m",
    dtype="bfloat16",
    quantization="int4",
    quantization_cache="",
    precision=Precision("int4", 32),
    head_precision=Precision("int8", 0, False),
    kv_dtype="float32",
    max_model_len=100,
    max_num_seqs=4,
    max_num_batched_tokens=64,
    block_size=16,
    num_blocks=50,
    threads=2,
    prefix_cache=True,
    scheduling_policy="fair",
    itl_floor_s=inf,
    itl_factor=5.0,
    weights=WeightBytes(1, 2, 3, 4),
    kv_bytes=2,
    activation_bytes=3,
    notes=("cut",),
)
PARAMS = SamplingParams(
    n=2, temperature=0.5, stop=["a", "é\n"], stop_token_ids=[3], logit_bias={1: -2.5}, seed=-(2**63), max_tokens=7,
    bad_words=["é"], allowed_token_ids=range(300), repetition_detection=RepetitionDetectionParams(9, 2, 3),
)  # fmt: skip
LOGPROB = TokenLogprob(5, -0.25, ((5, -0.25), (6, -1.5)))
MESSAGES = [
    Start(PLAN, "/models/é"),
    Submit(Request("id", (1, 2, 3), PARAMS, (2,), b"salt\xff", num_public_tokens=2, bad_sequences=((5,), (6, 7)))),
    Abort("id", 1),
    Abort("id"),
    Loading(1, 2**40),
    Ready("avx2", (("linear", "cpu", "why"),), 0.5),
    Failed("BrokenCheckpoint", "what"),
    Examined("canary", "differs", 10.0, 40.0, "é"),
    Refused("id", "RequestError", "no", "n"),
    StepReport(
        (Delta("id", 1, (5,), (LOGPROB,), (LOGPROB,), 16, Finish.STOP, 5), Delta("id", 0, error="bad")),
        StepStats(1, 2, 3, 4, 5, 6, 7, 0.125, CacheUse(9, 3, 2, 4, 16, 5)),
    ),
]


@given(st.lists(st.sampled_from(MESSAGES), max_size=6), st.integers(1, 50))
def test_messages_survive_any_cut(messages: list, piece: int) -> None:
    data = b"".join(encode(message) for message in messages)
    decoder, got = Decoder(), []
    for at in range(0, len(data), piece):
        got.extend(decoder.feed(data[at : at + piece]))
    assert got == messages


@given(st.binary(min_size=5, max_size=200))
def test_other_bytes_are_refused_or_waited_for(data: bytes) -> None:
    """Nothing but our error may come out, and whatever comes out is one of our messages."""
    try:
        for message in Decoder().feed(data):
            assert type(message) in {type(known) for known in MESSAGES}
    except InternalError:
        pass


def test_a_request_that_breaks_its_own_rules_is_refused() -> None:
    frame = bytearray(encode(MESSAGES[1]))
    at = frame.index(b"temperature") + len(b"temperature")
    frame[at : at + 9] = b"\xcb\x7f\xf8" + bytes(6)  # NaN
    with pytest.raises(InternalError):
        list(Decoder().feed(bytes(frame)))


@pytest.mark.parametrize(
    "body", [b"\x82\xaarequest_id\xa1\xa8\xa5index\x00", b"\xa1\xff", b"\x91" * 5000, b"\xc1", b""]
)
def test_bodies_that_break_the_parser_otherwise_are_refused(body: bytes) -> None:
    """Text that is no UTF-8 and nesting without end raise errors of Python's own."""
    kind = KINDS.index(Abort)
    with pytest.raises(InternalError, match="cannot be read"):
        list(Decoder().feed(struct.pack("<IB", len(body), kind) + body))
