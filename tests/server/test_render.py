"""The render routes: the exact text and ids of every way in, and that a second BOS is refused on all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tokenizers
from served import BUNDLED, TEMPLATE, TOKENIZER, Served

from quire.errors import RequestError
from quire.text.folder import SpecialTokens
from quire.text.tokenizer import Tokenizer

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HI = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Grüße 🦊"}]


@pytest.mark.parametrize("body", [{}, {"add_generation_prompt": False}, {"tools": [], "temperature": 0.5}])
def test_a_chat_is_shown_as_it_is_computed(talker: Served, body: dict[str, Any]) -> None:
    shown = talker.post(f"{CHAT}/render", {"messages": HI, "max_tokens": 3, **body}).json()
    computed = talker.post(CHAT, {"messages": HI, "max_tokens": 3, "return_token_ids": True, **body}).json()
    assert shown["token_ids"] == computed["prompt_token_ids"]
    assert shown["num_tokens"] == computed["usage"]["prompt_tokens"]
    assert shown["prompt"] == TEMPLATE.render(HI, add_generation_prompt=body.get("add_generation_prompt", True))
    assert shown["token_ids"] == TOKENIZER.encode(shown["prompt"], add_special_tokens=False)
    assert shown["template"] == TEMPLATE.digest
    assert (shown["tool_format"], shown["reasoning_format"]) == ("hermes", "none")
    assert shown["sampling"]["max_tokens"] == 3
    assert shown["sampling"]["temperature"] == body.get("temperature", shown["sampling"]["temperature"])
    assert shown["model"] == "bundled"


def test_completions_are_shown_too(talker: Served) -> None:
    shown = talker.post(f"{COMPLETIONS}/render", {"prompt": "Once upon"}).json()
    assert (shown["prompt"], shown["token_ids"]) == ("Once upon", TOKENIZER.encode("Once upon"))
    both = talker.post(f"{COMPLETIONS}/render", {"prompt": ["a", "b"]}).json()
    assert [each["prompt"] for each in both["prompts"]] == ["a", "b"]
    ids = talker.post(f"{COMPLETIONS}/render", {"prompt": [5, 6]}).json()
    assert ids["prompt"] == TOKENIZER.decode([5, 6], skip_special_tokens=False)


def test_nothing_is_computed_and_what_is_refused_is_refused_here_too(talker: Served) -> None:
    before = talker.runner.num_steps
    assert talker.post(f"{CHAT}/render", {"messages": HI, "temperature": 9}).error["param"] == "temperature"
    assert talker.post(f"{CHAT}/render", {"messages": HI * 300}).error["code"] == "context_length_exceeded"
    assert talker.post(f"{CHAT}/render", {"messages": HI}).status == 200
    assert talker.runner.num_steps == before
    assert talker.is_idle()


def test_a_second_bos_is_refused(tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer.from_file(str(BUNDLED / "tokenizer.json"))
    bos = backend.token_to_id("<|endoftext|>")
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", bos)]
    )
    tokenizer = Tokenizer(backend, SpecialTokens(named={"bos_token": "<|endoftext|>"}), {})
    assert tokenizer.encode("Hi")[0] == bos
    with pytest.raises(RequestError, match=r"adds another.*add_special_tokens=false"):
        tokenizer.encode("<|endoftext|>Hi", param="messages")
    assert tokenizer.encode("<|endoftext|>Hi", add_special_tokens=False)[0] == bos
    assert tokenizer.encode("<|endoftext|><|endoftext|>Hi")[:3] == [bos] * 3
