"""One target under libFuzzer, guided by which of our lines run: `python fuzz/target.py NAME [libFuzzer's arguments]`.

Knows: atheris. Does not know: what the targets check (`targets.py`), budgets (`run.py`).
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["quire"]):
    from targets import TARGETS, file_of, words


def main(name: str, arguments: list[str]) -> None:
    if name not in TARGETS:
        raise SystemExit(f"there is no target {name}; there are: {', '.join(TARGETS)}")
    listed = "".join([f'"{word}"\n' for word in dict.fromkeys(words())])
    atheris.Setup([name, f"-dict={file_of('words', listed.encode())}", *arguments], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
