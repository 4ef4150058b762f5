"""The loop: schedule, run, settle; and the ways to reach it from the same thread or another process.

Knows: the scheduler and the runner. Does not know: HTTP, JSON or text.
"""
