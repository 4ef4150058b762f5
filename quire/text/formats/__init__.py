"""Formats: how a model writes reasoning and tool calls. One description a dialect; everything else is read off it.

    dialect    the description: marks, and a call as a pattern of parts
    catalogue  the known dialects
    detect     which of them a chat template writes
    parser     text as it comes -> content, reasoning, calls (channels: the same for models that write in channels)
    writing    a call as the dialect writes it
    grammar    what the model may write, for a constrained answer

Knows: texts, tools' names and JSON schemas. Does not know: ids, sampling, HTTP, requests.
"""
