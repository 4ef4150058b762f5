"""Bodies that a client might mean, of every route, and junk to put into them.

Knows: the API's field names (from the server's own schema) and values that fit each. Does not know: HTTP, mutation.
"""

from __future__ import annotations

import copy
from random import Random

from chaos.http_text import CHAT, COMPLETIONS, Raw
from quire.server import fields, schema

Body = dict[str, object]
WORDS = "the old river ran past a small house and nobody in it had seen rain since the spring".split()  # noqa: SIM905
MOST_TOKENS = 3  # of a fuzzed answer, so that strangers take little of the machine
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": SCHEMA}}

SAMPLES: dict[str, list[object]] = {
    "model": ["default"],
    "n": [1, 1, 1, 2],
    "best_of": [1, 2],
    "temperature": [0, 0.5, 1.0, 2.0],
    "top_p": [0.1, 0.9, 1.0],
    "top_k": [-1, 0, 1, 40],
    "min_p": [0.0, 0.1],
    "presence_penalty": [-2.0, 0.0, 1.5],
    "frequency_penalty": [-2.0, 0.0, 1.5],
    "repetition_penalty": [0.5, 1.0, 1.3],
    "logit_bias": [{}, {"5": 1.5}, {"7": -100, "8": 100}],
    "seed": [0, 1, 2**62, -1],
    "stop": ["x", ["a", "b"], []],
    "stop_token_ids": [[1], []],
    "include_stop_str_in_output": [True, False],
    "stream": [True, False],
    "stream_options": [{"include_usage": True}, {"include_usage": True, "continuous_usage_stats": True}],
    "user": ["somebody", ""],
    "service_tier": ["auto", "default", "flex"],
    "min_tokens": [0, 1],
    "ignore_eos": [True, False],
    "skip_special_tokens": [True, False],
    "spaces_between_special_tokens": [True],
    "use_beam_search": [True, False],
    "length_penalty": [0.5, 1.0],
    "early_stopping": [True, False, "never"],
    "cache_salt": ["salt", "x" * 256],
    "priority": [0, 3],
    "return_token_ids": [True, False],
    "return_tokens_as_token_ids": [True, False],
    "prompt_logprobs": [0, 2],
    "bad_words": [["river"], []],
    "allowed_token_ids": [[5, 6, 7, 2]],
    "repetition_detection": [{"max_pattern_size": 4, "min_pattern_size": 1, "min_count": 4}],
    "truncate_prompt_tokens": [4, 100],
    "response_format": [{"type": "text"}, {"type": "json_object"}],
    "structured_outputs": [{"choice": ["yes", "no"]}, {"regex": "[0-9]{1,3}"}],
    "guided_json": [SCHEMA],
    "guided_regex": ["(yes|no)"],
    "guided_choice": [["yes", "no"]],
    "guided_grammar": ['root ::= "yes" | "no"'],
    "guided_whitespace_pattern": ["[ ]?"],
    "echo": [True, False],
    "add_special_tokens": [True, False],
    "logprobs": [True, False, 0, 3],
    "top_logprobs": [0, 3],
    "parallel_tool_calls": [True, False],
    "include_reasoning": [True, False],
    "thinking_token_budget": [0, 5],
    "add_generation_prompt": [True, False],
    "continue_final_message": [True, False],
    "chat_template_kwargs": [{}, {"enable_thinking": False}],
    "tools": [[TOOL], []],
    "tool_choice": ["auto", "none", "required"],
    "reasoning_effort": ["low", "none"],
    "return_token_strs": [True, False],
}
RARE = ("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar", "tools")
"""Each needs a grammar compiled: in company of fewer others."""

JUNK: tuple[object, ...] = (
    None, True, False, 0, 1, -1, 2, 64, 65, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1,
    10**30, 10**400, 10**4500, 0.5, -0.0, 1e-300, 1e308, -1e308, Raw("NaN"), Raw("-Infinity"), Raw("Infinity"),
    Raw("1e999"), Raw("-1e999"), Raw("1E400"), Raw("0.0000000000000000000000001"), Raw("1" * 3000), "", " ", "0", "1",
    "true", "null", "NaN", "a", "x" * 300, "x" * 20000, "\x00", "\n", "a\x00b", Raw('"\\ud800"'), Raw('"\\udfff x"'),
    Raw('"\\ud83d\\ude00"'), "💥" * 20, "\u202e\u2066\ufeff", "é" * 50, "../../etc/passwd", "%s%n%x", "${jndi:ldap://x}",
    "{{7*7}}", "<script>", "'; DROP TABLE keys; --", [], [[]], [None], [True], [0], [-1], [2**40], [1.5], ["a"], [""],
    [[], {}], ["a"] * 200, list(range(300)), {}, {"": 0}, {"a": 1}, {"5": 1}, {"5": "x"}, {"-1": 0}, {"999999999": 1.0},
    {"type": "x"}, {"type": None}, {"type": "json_schema"}, {"type": "object", "$ref": "#"}, [{"role": "user"}],
)  # fmt: skip


def text_of(rng: Random, most: int = 30) -> str:
    """A few words."""
    return " ".join(rng.choices(WORDS, k=rng.randint(1, most)))


def messages(rng: Random) -> list[object]:
    """A conversation of one to three turns."""
    found: list[object] = [{"role": "user", "content": text_of(rng)}]
    if rng.random() < 0.3:
        found.insert(0, {"role": "system", "content": text_of(rng, 8)})
    if rng.random() < 0.2:
        found += [{"role": "assistant", "content": text_of(rng)}, {"role": "user", "content": text_of(rng, 5)}]
    if rng.random() < 0.2:
        found[-1] = {"role": "user", "content": [{"type": "text", "text": text_of(rng)}]}
    return found


def prompt(rng: Random) -> object:
    """A prompt in any of its forms."""
    forms: list[object] = [
        text_of(rng),
        [text_of(rng, 5), text_of(rng, 5)],
        [rng.randint(3, 400) for _ in range(rng.randint(1, 20))],
        [[rng.randint(3, 400)], [5, 6]],
    ]
    return rng.choices(forms, (5, 1, 2, 1))[0]


def names_of(path: str) -> list[str]:
    """Every field that the route implements, guards or lets be, but for the prompt."""
    kinds = {CHAT: (schema.ChatBody, fields.CHAT), COMPLETIONS: (schema.CompletionBody, fields.COMPLETIONS)}
    kind, guarded = kinds[path]
    return sorted({*kind.model_fields, *guarded, *fields.INERT} - {"messages", "prompt"})


def generation(rng: Random, path: str) -> Body:
    """A body for a route that generates (or renders), with some of its fields set to what fits them."""
    body: Body = {"messages": messages(rng)} if path.startswith(CHAT) else {"prompt": prompt(rng)}
    body["max_tokens"] = rng.randint(1, MOST_TOKENS)
    known = CHAT if path.startswith(CHAT) else COMPLETIONS
    choices = [name for name in names_of(known) if name in SAMPLES and (name not in RARE or rng.random() < 0.1)]
    for name in rng.sample(choices, rng.randint(0, 3)):
        body[name] = copy.deepcopy(rng.choice(SAMPLES[name]))
    return body


def any_body(rng: Random) -> tuple[str, Body]:
    """A route that takes a body, and one that it might be sent."""
    path = rng.choices(
        (CHAT, COMPLETIONS, f"{CHAT}/render", f"{COMPLETIONS}/render", "/tokenize", "/detokenize"), (5, 5, 1, 1, 2, 1)
    )[0]
    if path == "/detokenize":
        return path, {"tokens": [rng.randint(0, 400) for _ in range(rng.randint(0, 20))]}
    if path != "/tokenize":
        return path, generation(rng, path)
    if rng.random() < 0.5:
        return path, {"prompt": text_of(rng), "return_token_strs": rng.random() < 0.3}
    return path, {"messages": messages(rng)}


def is_short(body: object) -> bool:
    """Whether an answer to it, if there is one, is short by its own terms."""
    if not isinstance(body, dict):
        return True
    caps = [body.get(name) for name in ("max_tokens", "max_completion_tokens")]
    return any(isinstance(cap, int) and not isinstance(cap, bool) and cap <= 8 for cap in caps)
