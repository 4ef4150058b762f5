"""docs/advisories.md, written from the table.

    python -m chaos.advisories_page

Knows: Markdown. Does not know: payloads.
"""

from __future__ import annotations

from pathlib import Path

from chaos.advisories import TABLE


def page() -> str:
    """The table as Markdown."""
    lines = [
        "# Payloads of advisories",
        "<!-- Written by `python -m chaos.advisories`; edit chaos/advisories.py, not this page. -->",
        "",
        "What has killed, filled or opened other servers, and what is right here. Each class is a set of payloads; ",
        "`python -m chaos.beside` sends all of them beside healthy streams.",
        "",
        "| class | seen as | what it did | right here | payloads |",
        "|---|---|---|---|---|",
    ]
    for row in TABLE:
        lines.append(f"| {row.name} | {row.seen} | {row.did} | {row.here} | {len(row.entries())} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (Path(__file__).resolve().parents[1] / "docs" / "advisories.md").write_text(page(), encoding="utf-8")
