"""Requests beside one to three tools: the right call, or a plain answer when no tool is meant.

Knows tools, their parameters (`tool_parameters.py`) and which names are held out; knows no tokens.
"""

# ruff: noqa: SIM905 - word lists read better as text
from __future__ import annotations

import json
from random import Random
from typing import Any

from training import words
from training.conversation import Conversation, HeldOut, Message, Tool, assistant, system, user
from training.skills import arithmetic, dialogue
from training.skills.tool_parameters import PARAMETERS, Parameter

_VERBS = tuple(
    """get find create delete update list send book cancel check open close start stop read search add remove count
    show order plan play track rename print share move save load review rate sort copy watch""".split()
)
_NOUNS = tuple(
    """weather recipe ticket meeting invoice alarm reminder playlist flight hotel room table taxi parcel package
    letter report file folder image video song album movie book article page note task project contact customer
    account payment refund coupon price product stock order review rating comment post photo map route train bus
    lesson course exam grade student teacher patient doctor appointment pharmacy restaurant menu dish meal garden
    plant lamp door window heater camera sensor server backup database job""".split()
)
HELD_OUT_NOUNS = tuple(
    """calendar museum library printer umbrella bicycle passport festival channel license translation subscription
    thermostat telescope donation survey warehouse vaccine podcast ferry""".split()
)

_FRAMES = (
    "{}.",
    "Please {}.",
    "Can you {}?",
    "Could you {}?",
    "I want you to {}.",
    "I need to {}.",
    "Please {} for me.",
    "Hi, can you {}?",
    "{}, please.",
    "Now {}.",
)
_HELD_OUT_FRAMES = ("Would you {}?", "I would be glad if you could {}.", "It is time to {}.", "Kindly {}.")
_SYSTEMS = ("You are a helpful assistant.", "You are a helpful assistant with tools.", "Use the tools when they help.")


def make_tool(name: str, description: str, parameters: list[Parameter]) -> Tool:
    """A tool in the OpenAI shape."""
    schema = {
        "type": "object",
        "properties": {parameter.name: parameter.schema for parameter in parameters},
        "required": [parameter.name for parameter in parameters],
    }
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


def call(name: str, arguments: dict[str, Any]) -> Message:
    function = {"name": name, "arguments": arguments}
    return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}


def _made_tool(rng: Random, *, held_out: bool) -> tuple[Tool, str, list[Parameter]]:
    """A tool of verb and noun, the words of a request for it, and its parameters."""
    verb, noun = rng.choice(_VERBS), rng.choice(HELD_OUT_NOUNS if held_out else _NOUNS)
    if not held_out and rng.random() < 0.2:
        noun = words.made_up(rng).lower()
    parameters = rng.sample(PARAMETERS, rng.choice((1, 1, 2, 2, 3)))
    order = f"{verb} {rng.choice(('the', 'a', 'my'))} {noun}"
    name = f"{verb}_{noun}" if rng.random() < 0.85 else f"{noun}_{verb}"
    tool = make_tool(name, f"{verb.capitalize()} the {noun}", parameters)
    if rng.random() < 0.2:
        for key, schema in tool["function"]["parameters"]["properties"].items():
            schema["description"] = f"The {key}"
    return tool, order, parameters


def _request(rng: Random, order: str, parameters: list[Parameter], *, held_out: bool) -> tuple[str, dict[str, Any]]:
    values = {parameter.name: parameter.draw(rng) for parameter in parameters}
    shuffled = rng.sample(parameters, len(parameters))
    clauses = [parameter.say(rng, values[parameter.name], held_out=held_out) for parameter in shuffled]
    frame = rng.choice(_HELD_OUT_FRAMES if held_out else _FRAMES)
    text = frame.format(" ".join([order, *clauses]))
    return text[0].upper() + text[1:], values


def _toolbox(rng: Random, *, held_out: bool) -> list[tuple[Tool, str, list[Parameter]]]:
    """One to three made-up tools with different names."""
    made = [_made_tool(rng, held_out=held_out) for _ in range(rng.choice((1, 2, 2, 3)))]
    return list({entry[0]["function"]["name"]: entry for entry in made}.values())


_UNIT = {"type": "string", "enum": ["celsius", "fahrenheit"]}
_WEATHER_QUESTIONS = (
    "What is the weather in {}?",
    "What's the weather like in {}?",
    "How is the weather in {}?",
    "Is it raining in {}?",
    "Weather in {}?",
    "Tell me the weather in {}.",
    "How warm is it in {}?",
    "Will I need a coat in {} today?",
)
_TIME_QUESTIONS = ("What time is it in {}?", "Tell me the time in {}.", "What is the time in {}?")
_FACT_QUESTIONS = ("Search the web for {}.", "Look up {}.", "Find something about {} on the web.")


def _everyday(rng: Random) -> tuple[Tool, str, dict[str, Any], str]:
    """The tools that every example of tool calling has: tool, question, arguments, an answer to expect."""
    kind = rng.choice(("weather", "weather", "time", "search", "sum"))
    if kind == "sum":
        a, b = rng.randint(10, 99), rng.randint(10, 99)
        tool = make_tool(
            rng.choice(("calculator", "calculate")),
            "Calculate a sum",
            [Parameter("expression", "string", words.city, (), ())],
        )
        return tool, f"Use the calculator: {a} + {b}", {"expression": f"{a} + {b}"}, json.dumps({"result": a + b})
    if kind == "search":
        topic = rng.choice(words.TOPICS)
        tool = make_tool(
            rng.choice(("web_search", "search_web", "search")),
            "Search the web",
            [Parameter("query", "string", words.city, (), ())],
        )
        return (
            tool,
            rng.choice(_FACT_QUESTIONS).format(topic),
            {"query": topic},
            json.dumps({"found": words.number(rng)}),
        )
    key = rng.choice(("city", "location", "place"))
    parameter = Parameter(key, "string", words.city, (), ())
    town = words.city(rng)
    if kind == "time":
        tool = make_tool(rng.choice(("get_time", "current_time")), "Get the time in a city", [parameter])
        return (
            tool,
            rng.choice(_TIME_QUESTIONS).format(town),
            {key: town},
            json.dumps({"time": f"{rng.randint(0, 23)}:30"}),
        )
    tool = make_tool(
        rng.choice(("get_weather", "get_current_weather", "weather")),
        rng.choice(("Get the weather", "Get the weather in a city", "Get the current weather")),
        [parameter],
    )
    properties = tool["function"]["parameters"]["properties"]
    if rng.random() < 0.3:
        properties[key]["description"] = rng.choice(("The city", "The name of the city", "City, for example Paris"))
    if rng.random() < 0.4:
        properties["unit"] = dict(_UNIT)
    result = {"temperature": rng.randint(-9, 35), "sky": rng.choice(("sunny", "cloudy", "rainy", "snowy"))}
    return tool, rng.choice(_WEATHER_QUESTIONS).format(town), {key: town}, json.dumps(result)


def _answer_from(result: str) -> str:
    return f"{words.listed([f'the {key} is {value}' for key, value in json.loads(result).items()])}.".capitalize()


def _result(rng: Random) -> str:
    key = rng.choice(("id", "status", "total", "count", "price", "number"))
    return json.dumps({key: rng.choice(("done", "open", "ready")) if key == "status" else words.number(rng)})


def _everyday_conversation(rng: Random) -> tuple[list[Message], tuple[Tool, ...]]:
    tool, text, arguments, result = _everyday(rng)
    others = [_made_tool(rng, held_out=False)[0] for _ in range(rng.choice((0, 0, 1, 2)))]
    tools = rng.sample([tool, *others], len(others) + 1)
    messages = [user(text), call(tool["function"]["name"], arguments)]
    if rng.random() < 0.5:
        messages += [{"role": "tool", "content": result}, assistant(_answer_from(result))]
    return messages, tuple(tools)


def _made_conversation(rng: Random) -> tuple[list[Message], tuple[Tool, ...]]:
    """One to three requests to the same tools; all but the last surely with a result."""
    toolbox = _toolbox(rng, held_out=False)
    messages: list[Message] = []
    num_requests = rng.choice((1, 1, 2, 3))
    for index in range(num_requests):
        tool, order, parameters = rng.choice(toolbox)
        text, arguments = _request(rng, order, parameters, held_out=False)
        messages += [user(text), call(tool["function"]["name"], arguments)]
        if index < num_requests - 1 or rng.random() < 0.2:
            result = _result(rng)
            messages += [{"role": "tool", "content": result}, assistant(_answer_from(result))]
    return messages, tuple(entry[0] for entry in toolbox)


def train(rng: Random) -> Conversation:
    messages, tools = _everyday_conversation(rng) if rng.random() < 0.25 else _made_conversation(rng)
    if rng.random() < 0.15:  # no tool is meant
        messages = list(rng.choice((arithmetic, dialogue)).train(rng).messages)
    if rng.random() < 0.4 and messages[0]["role"] != "system":
        messages.insert(0, system(rng.choice(_SYSTEMS)))
    return Conversation(tuple(messages), tools)


def held_out(rng: Random) -> HeldOut:
    """Tools whose nouns training never uses in a name, in wordings never trained on."""
    toolbox = _toolbox(rng, held_out=True)
    tools = tuple(entry[0] for entry in toolbox)
    tool, order, parameters = rng.choice(toolbox)
    text, arguments = _request(rng, order, parameters, held_out=True)
    name = tool["function"]["name"]
    right = f'<tool_call>\n{{"name": {json.dumps(name)}, "arguments": {json.dumps(arguments)}}}\n</tool_call>'

    def check(answer: str) -> bool:
        body = answer.strip().removeprefix("<tool_call>").removesuffix("</tool_call>")
        try:
            return bool(json.loads(body) == {"name": name, "arguments": arguments})
        except json.JSONDecodeError:
            return False

    return HeldOut((user(text),), right, check, tools)
