"""The dialects that are known, each as its description. Adding one is adding an entry.

Order matters where a template could be read as several: the more particular dialect stands first.

Knows: what models write. Does not know: which model writes what (`detect.py` looks at the template).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from quire.text.formats.dialect import Calls, Channels, Keywords, Maybe, Parameter, Part, Reasoning

PYTHON = Keywords("(", "=", ")", ('"', "'"), escapes=True)

HERMES = Calls(
    "hermes",
    ("<tool_call>\n", Part.OBJECT, "\n</tool_call>"),
    starts=("<tool_call>",),
    noise=("</tool_call>",),
    between="\n",
)
QWEN3_CODER = Calls(
    "qwen3_coder",
    (Maybe(("<tool_call>\n",)), "<function=", Part.NAME, ">\n", Part.PARAMETERS, "</function>\n</tool_call>"),
    starts=("<tool_call>", "<function="),
    noise=("</tool_call>", "</function>"),
    between="\n",
    parameter=Parameter("<parameter=", ">", "</parameter>\n", pad="\n"),
)
GLM = Calls(
    "glm",
    ("<tool_call>", Part.NAME, "\n", Part.PARAMETERS, "</tool_call>"),
    starts=("<tool_call>",),
    noise=("</tool_call>",),
    between="\n",
    parameter=Parameter("<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>\n"),
)
MINIMAX = Calls(
    "minimax",
    ('<invoke name="', Part.NAME, '">\n', Part.PARAMETERS, "</invoke>"),
    starts=('<invoke name="',),
    noise=("<minimax:tool_call>", "</minimax:tool_call>", "</invoke>"),
    begin="<minimax:tool_call>\n",
    between="\n",
    end="\n</minimax:tool_call>",
    parameter=Parameter('<parameter name="', '">', "</parameter>\n"),
)
DEEPSEEK_V3 = Calls(
    "deepseek_v3",
    (
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>", Part.NAME, "\n```json\n", Part.JSON, "\n```<｜tool▁call▁end｜>",
    ),
    starts=("<｜tool▁call▁begin｜>",),
    noise=("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"),
    begin="<｜tool▁calls▁begin｜>",
    between="\n",
    end="<｜tool▁calls▁end｜>",
)  # fmt: skip
DEEPSEEK_V31 = Calls(
    "deepseek_v31",
    ("<｜tool▁call▁begin｜>", Part.NAME, "<｜tool▁sep｜>", Part.JSON, "<｜tool▁call▁end｜>"),
    starts=DEEPSEEK_V3.starts,
    noise=DEEPSEEK_V3.noise,
    begin=DEEPSEEK_V3.begin,
    end=DEEPSEEK_V3.end,
)
KIMI_K2 = Calls(
    "kimi_k2",
    (
        "<|tool_call_begin|>", Maybe(("functions.",)), Part.NAME, Maybe((":", Part.NUMBER)),
        "<|tool_call_argument_begin|>", Part.JSON, "<|tool_call_end|>",
    ),
    starts=("<|tool_call_begin|>",),
    noise=(
        "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", "<|tool_call_argument_begin|>",
        "<|tool_call_end|>",
    ),
    begin="<|tool_calls_section_begin|>",
    end="<|tool_calls_section_end|>",
    ids="numbered",
)  # fmt: skip
MISTRAL = Calls(
    "mistral",
    ("[TOOL_CALLS]", Part.NAME, Maybe(("[CALL_ID]", Part.ID)), "[ARGS]", Part.JSON),
    starts=("[TOOL_CALLS]",),
    noise=("[CALL_ID]", "[ARGS]"),
    ids="nine",
)
MISTRAL_LIST = Calls(
    "mistral_list",
    (Part.OBJECT,),
    starts=("[TOOL_CALLS]",),
    begin="[TOOL_CALLS]",
    open="[",
    between=", ",
    shut="]",
    is_list=True,
    ids="nine",
)
GRANITE = Calls(
    "granite",
    (Part.OBJECT,),
    starts=("<|tool_call|>",),
    begin="<|tool_call|>",
    open="[",
    between=", ",
    shut="]",
    is_list=True,
)
NEMOTRON = Calls(
    "nemotron",
    (Part.OBJECT,),
    starts=("<TOOLCALL>",),
    noise=("</TOOLCALL>",),
    begin="<TOOLCALL>",
    open="[",
    between=", ",
    shut="]",
    end="</TOOLCALL>",
    is_list=True,
)
COHERE = Calls(
    "cohere",
    (Part.OBJECT,),
    starts=("<|START_ACTION|>",),
    noise=("<|END_ACTION|>",),
    begin="<|START_ACTION|>",
    open="[\n    ",
    between=",\n    ",
    shut="\n]",
    end="<|END_ACTION|>",
    is_list=True,
    keys=("tool_name", "parameters"),
)
GEMMA4 = Calls(
    "gemma4",
    ("<|tool_call>call:", Part.NAME, Part.KEYWORDS, "<tool_call|>"),
    starts=("<|tool_call>",),
    noise=("<tool_call|>", "<|tool_response>"),
    keywords=Keywords("{", ":", "}", ('<|"|>',), escapes=False),
)
LFM2 = Calls(
    "lfm2",
    (Part.NAME, Part.KEYWORDS),
    starts=("<|tool_call_start|>",),
    noise=("<|tool_call_end|>",),
    begin="<|tool_call_start|>",
    open="[",
    between=", ",
    shut="]",
    end="<|tool_call_end|>",
    is_list=True,
    keywords=PYTHON,
)
LLAMA3 = Calls(
    "llama3",
    (Part.OBJECT,),
    starts=("<|python_tag|>",),
    between="; ",
    is_list=True,
    bare=True,
    keys=("name", "parameters", "arguments"),
    one=True,
)
PYTHONIC = Calls(
    "pythonic",
    (Part.NAME, Part.KEYWORDS),
    starts=("<|python_start|>", "<|python_tag|>"),
    noise=("<|python_end|>",),
    open="[",
    between=", ",
    shut="]",
    is_list=True,
    bare=True,
    keywords=PYTHON,
)
HARMONY = Channels(
    "harmony",
    start="<|start|>",
    channel="<|channel|>",
    constrain="<|constrain|>",
    message="<|message|>",
    ends=("<|end|>", "<|return|>", "<|call|>"),
    call_end="<|call|>",
    thought="analysis",
    content=("final", "commentary"),
    call="commentary",
    prefix="functions.",
)

TOOL_FORMATS: Mapping[str, Calls | Channels] = MappingProxyType(
    {
        each.name: each
        for each in (
            HARMONY, QWEN3_CODER, GLM, MINIMAX, DEEPSEEK_V3, DEEPSEEK_V31, KIMI_K2, MISTRAL, MISTRAL_LIST, GRANITE,
            NEMOTRON, COHERE, GEMMA4, LFM2, HERMES, LLAMA3, PYTHONIC,
        )
    }
)  # fmt: skip

THINK = Reasoning("think", "<think>", "</think>")
THINK_RESPONSE = Reasoning("think_response", "<think>", "</think>", noise=("<response>", "</response>"), pad="", gap="")
BRACKETS = Reasoning("brackets", "[THINK]", "[/THINK]", pad="", gap="")
GEMMA_CHANNEL = Reasoning("gemma_channel", "<|channel>thought", "<channel|>", gap="")
SEED = Reasoning("seed", "<seed:think>", "</seed:think>")
COHERE_THINKING = Reasoning(
    "cohere_thinking",
    "<|START_THINKING|>",
    "<|END_THINKING|>",
    noise=("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    pad="",
    gap="",
)

REASONING_FORMATS: Mapping[str, Reasoning | Channels] = MappingProxyType(
    {
        each.name: each
        for each in (HARMONY, THINK_RESPONSE, THINK, BRACKETS, GEMMA_CHANNEL, SEED, COHERE_THINKING)
    }
)  # fmt: skip
