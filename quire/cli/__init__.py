"""What people type: serve, run, chat, bench, doctor. stdout is data, stderr is talk.

Knows: the public parts of everything. Does not know: how any of them works inside.
"""
