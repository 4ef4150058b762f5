"""Text room: text to ids and back, chat templates, stop strings.

Knows: characters and token ids. Does not know: sampling, scheduling, requests, HTTP.
"""
