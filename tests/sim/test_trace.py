"""Reading traces. Knows: three forms and their mistakes. Does not know: replays."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from quire.errors import StartError
from quire.sim.trace import Arrival, read_trace

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9305900,396,109
2023-11-16 18:15:48.6805900,10,1
"""
BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,0,1087,Conversation log
46,ChatGPT,1087,230,1317,Conversation log
"""
MOONCAKE = """{"timestamp": 1000, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1]}
{"timestamp": 3500, "input_length": 7322, "output_length": 490, "hash_ids": [0, 2]}
"""


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_azure_in_order_of_time(tmp_path: Path) -> None:
    arrivals = read_trace(written(tmp_path, "a.csv", AZURE))
    assert [(round(one.at_s, 3), one.num_prompt, one.num_output) for one in arrivals] == [
        (0.0, 374, 44),
        (2.0, 10, 1),
        (4.25, 396, 109),
    ]


def test_burstgpt_without_failed_requests(tmp_path: Path) -> None:
    assert read_trace(written(tmp_path, "b.csv", BURSTGPT)) == [Arrival(0.0, 472, 18), Arrival(41.0, 1087, 230)]


def test_mooncake_in_milliseconds(tmp_path: Path) -> None:
    assert read_trace(written(tmp_path, "m.jsonl", MOONCAKE)) == [
        Arrival(0.0, 6758, 500, (0, 1)),
        Arrival(2.5, 7322, 490, (0, 2)),
    ]


def test_only_the_first_rows(tmp_path: Path) -> None:
    assert len(read_trace(written(tmp_path, "a.csv", AZURE), 2)) == 2


def test_times_do_not_depend_on_where_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    night = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-05 00:30:00,1,1\n2023-11-05 03:30:00,1,1\n"
    monkeypatch.setitem(os.environ, "TZ", "America/New_York")
    time.tzset()
    try:
        assert read_trace(written(tmp_path, "a.csv", night))[1].at_s == 3 * 3600
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "", "holds no requests"),
        ("a.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n", "holds no requests"),
        ("a.csv", "when,how many\n1,2\n", "columns of no known form.*when, how many"),
        ("a.csv", AZURE + "2023-11-16 18:15:46,many,1\n", "line 5"),
        ("a.csv", AZURE + "yesterday,1,1\n", "line 5"),
        ("a.csv", AZURE + "2023-11-16 18:15:46\n", "line 5"),
        ("m.jsonl", MOONCAKE + "{\n", "line 3"),
        ("m.jsonl", "[1]\n", "line 1"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(StartError, match=said):
        read_trace(written(tmp_path, name, text))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot be read"):
        read_trace(tmp_path / "none.csv")


def test_the_published_traces(shared_data: Path) -> None:
    traces = shared_data / "traces"
    conversation = read_trace(traces / "azure" / "AzureLLMInferenceTrace_conv.csv")
    assert len(conversation) == 19366
    assert max(one.num_prompt + one.num_output for one in conversation) == 14089
    assert read_trace(traces / "mooncake" / "conversation_trace.jsonl", 10)[0].num_prompt == 6758
    assert read_trace(traces / "burstgpt" / "burstgpt_sample_54rows.csv")[0].num_output == 18
