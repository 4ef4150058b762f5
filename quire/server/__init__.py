"""Server room: the OpenAI API over HTTP in front of an engine client.

Knows: HTTP, OpenAI's and vLLM's words, text. Does not know: the scheduler, the runner, models.
"""
