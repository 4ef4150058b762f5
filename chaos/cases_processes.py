"""Processes that die or stand still while streams run.

Knows: signals, what streams and health must then do. Does not know: how a server restarts anything.
"""

from __future__ import annotations

import signal
import time

from chaos import asking
from chaos.asking import Load, complete, during, told
from chaos.case import Case, check, soon
from chaos.served import DidNotStart, Served, command, is_alive, send, served

QUIET = ("--log-level", "warning")
RESUME_S = 3.0
NOT_READY_S, RECOVERED_S = 5.0, 15.0
LEAVE_S = 1.5  # a second, and a little for looking


def engine_killed() -> str:
    """SIGKILL to the engine."""
    with served(*QUIET) as server:
        first = server.engine
        streams, worst_s = during(server.port, Load(), lambda: send(first, signal.SIGKILL))
        check(not streams.harmed, told(streams))
        check(worst_s <= RESUME_S, f"streams stood still for {worst_s:.2f} s, at most {RESUME_S:g} s")
        check(server.engine not in (None, first), "no new engine")
        check(complete(server.port)[0] == 200, "a new request is not answered")
        return f"{told(streams)}; the longest pause {worst_s:.2f} s"


def engine_killed_again_and_again() -> str:
    """Three times within seconds."""

    def kill_thrice() -> None:
        for _ in range(3):
            engine, _ = soon(lambda: server.engine, 10.0, "an engine")
            send(engine, signal.SIGKILL)
            soon(lambda: server.engine not in (None, engine), 15.0, "a new engine")  # noqa: B023
            time.sleep(0.5)

    with served(*QUIET) as server:
        streams, worst_s = during(server.port, Load(after_s=6.0), kill_thrice)
        check(not streams.harmed, told(streams))
        return f"{told(streams)}; the longest pause {worst_s:.2f} s"


def front_killed() -> str:
    """SIGKILL to the front."""
    with served(*QUIET) as server:
        engine, grammars = server.engine, server.grammars
        during(server.port, Load(num_streams=2, after_s=0.2), lambda: None)
        server.process.kill()
        _, seconds = soon(lambda: not is_alive(engine) and not is_alive(grammars), LEAVE_S, "the engine leaves")
        check(asking.get(server.port, "/health") == asking.GONE, "somebody still listens")
        return f"engine and grammar process gone after {seconds:.2f} s, the port is free"


def grammars_killed() -> str:
    """SIGKILL to the grammar process while plain and constrained answers run."""
    with served(*QUIET) as server:
        form = {"structured_outputs": {"regex": "[a-z ]{200,300}"}, "max_tokens": 200}
        check(complete(server.port, **form)[0] == 200, "a constrained request is not answered at the start")
        first = server.grammars
        answers: list[int] = []

        def kill() -> None:
            send(first, signal.SIGKILL)
            answers.append(complete(server.port, **form)[0])

        streams, worst_s = during(server.port, Load(), kill)
        check(not streams.harmed, told(streams))
        check(answers[0] == 200, f"a constrained request beside it: {answers[0]}")
        status, _ = complete(server.port, **form)
        check(status == 200, f"constrained requests afterwards: {status}")
        check(server.grammars not in (None, first), "no new grammar process")
        return (
            f"{told(streams)}; constrained at once {answers[0]}, afterwards {status}; the longest pause {worst_s:.2f} s"
        )


def engine_stopped() -> str:
    """SIGSTOP to the engine."""
    ready = "/readyz"

    def stop() -> None:
        send(server.engine, signal.SIGSTOP)
        found.append(soon(lambda: asking.get(server.port, ready) == 503, NOT_READY_S, "/readyz says 503")[1])
        begin = time.monotonic()
        check(asking.get(server.port, "/livez") == 200, "/livez fails")
        soon(lambda: asking.get(server.port, ready) == 200, RECOVERED_S - found[0], "/readyz says 200 again")
        found.append(time.monotonic() - begin + found[0])

    found: list[float] = []
    with served(*QUIET) as server:
        check(asking.get(server.port, ready) == 200, f"{ready} does not say 200 at the start")
        streams, worst_s = during(server.port, Load(), stop)
        check(not streams.harmed, told(streams))
        times = f"not ready after {found[0]:.1f} s, ready again after {found[1]:.1f} s"
        return f"{times}; {told(streams)}, the longest pause {worst_s:.1f} s"


def engine_stopped_briefly() -> str:
    """SIGSTOP, and SIGCONT a second later: nobody should be killed for it."""

    def pause() -> None:
        send(server.engine, signal.SIGSTOP)
        time.sleep(1.0)
        send(server.engine, signal.SIGCONT)

    with served(*QUIET) as server:
        first = server.engine
        streams, worst_s = during(server.port, Load(), pause)
        check(not streams.harmed, told(streams))
        check(server.engine == first, "the engine was started anew")
        return f"{told(streams)}; the longest pause {worst_s:.2f} s; the same engine"


def grammars_stopped() -> str:
    """SIGSTOP to the grammar process while a constrained answer runs."""
    with served(*QUIET) as server:
        form = {"structured_outputs": {"regex": "[a-z ]{300,400}"}, "max_tokens": 300}
        check(complete(server.port, **form)[0] == 200, "a constrained request is not answered at the start")
        answers: list[int] = []

        def stop() -> None:
            send(server.grammars, signal.SIGSTOP)
            answers.append(complete(server.port, 40.0, **form)[0])

        streams, worst_s = during(server.port, Load(after_s=2.0), stop)
        check(not streams.harmed, told(streams))
        check(worst_s < 3.0, f"streams stood still for {worst_s:.1f} s")
        check(answers[0] == 200, f"the constrained request beside it: {answers[0]}")
        status = soon(lambda: complete(server.port, **form)[0] == 200, 10.0, "constrained requests are answered again")[
            1
        ]
        return f"{told(streams)}, worst {worst_s:.1f} s; constrained then {answers[0]}, again after {status:.1f} s"


def engine_killed_while_loading() -> str:
    """SIGKILL to the engine as soon as it is there."""
    import subprocess
    import tempfile

    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(command(*QUIET), stdin=subprocess.DEVNULL, stderr=stderr)
        server = Served(process, None, 0)  # type: ignore[arg-type]
        try:
            engine, _ = soon(lambda: server.engine, 20.0, "an engine")
            send(engine, signal.SIGKILL)
            soon(
                lambda: process.poll() is not None or server.engine not in (None, engine),
                15.0,
                "an end or a new engine",
            )
            code = process.poll()
            stderr.seek(0)
            said = stderr.read().decode()
        finally:
            process.terminate()
            process.wait(20)
    if code is None:
        return "a new engine was started"
    check(code not in (0, -9), f"exit code {code}")
    check("engine" in said and "Traceback" not in said, f"it says: {said[-300:]}")
    return f"exit code {code}: {said.strip().splitlines()[-1][:120]}"


def told_to_leave() -> str:
    """SIGTERM while streams run."""
    with served(*QUIET) as server:
        engine, grammars = server.engine, server.grammars
        codes: list[int] = []
        streams, _ = during(server.port, Load(num_streams=4, after_s=0.0), lambda: codes.append(server.stop()))
        check(codes == [0], f"exit code {codes}")
        cut = [each for each in streams.harmed if each.at_s and each.data and b"[DONE]" not in each.data]
        check(not cut, f"{len(cut)} streams were cut: {told(streams)}")
        soon(lambda: not is_alive(engine) and not is_alive(grammars), LEAVE_S, "no process stays")
        return f"exit code 0, no stream cut ({streams.num_heard} heard), no process left"


def does_not_start_twice() -> str:
    """A second server on a port that is taken."""
    with served(*QUIET) as server:
        try:
            argv = [*command(*QUIET)]
            argv[argv.index("--port") + 1] = str(server.port)
            with served(argv=argv):
                check(False, "it serves")
        except DidNotStart as problem:
            check("exit code 2" in str(problem) and "cannot listen" in str(problem), str(problem))
            check("Traceback" not in str(problem), "a traceback")
        check(asking.get(server.port, "/health") == 200, "the first no longer serves")
        return "exit code 2, says so; the first serves on"


CASES = (
    Case("kill -9 engine", "streams pause at most 3 s and go on, byte for byte", engine_killed),
    Case("kill -9 engine, three times", "the same", engine_killed_again_and_again),
    Case("kill -9 engine at its start", "a new one, or an end that says why", engine_killed_while_loading),
    Case("kill -9 front", "no process stays longer than a second", front_killed),
    Case("kill -9 grammar process", "no stream stops, constrained ones neither", grammars_killed),
    Case("SIGSTOP engine", "/readyz 503 within 5 s, 200 within 15 s, streams go on", engine_stopped),
    Case("SIGSTOP engine for a second", "a pause, no restart", engine_stopped_briefly),
    Case("SIGSTOP grammar process", "3 s of pause at most; constrained requests go on", grammars_stopped),
    Case("SIGTERM", "exit code 0, no stream cut, no process left", told_to_leave),
    Case("port taken", "exit code 2 and a sentence; the first serves on", does_not_start_twice),
)  # fmt: skip
