"""Tenancy room: who a key belongs to, and on what terms.

Knows: key files. Does not know: HTTP, requests, the engine.
"""
