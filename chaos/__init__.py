"""What a night can do to a server, done on purpose: hostile requests, dying processes, full disks, long hauls.

Knows: how a server is started, looked at from outside and hurt. Does not know: how it is built.
"""
