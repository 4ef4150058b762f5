"""Observation room: figures and log lines about what happens.

Knows: events, as numbers and ids. Does not know: the engine, HTTP bodies, prompts.
"""
