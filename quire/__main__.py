"""`python -m quire` is the `quire` command.

Knows: where the command line begins. Does not know: anything else.
"""

from quire.cli.main import run

if __name__ == "__main__":
    run()
