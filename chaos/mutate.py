"""One change to a body: a value, a key, a subtree, or the bytes that it is written in.

Knows: JSON trees and text. Does not know: field names, routes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from random import Random
from typing import Any

from chaos.bodies import JUNK, Body
from chaos.http_text import Object, Raw, as_bytes, render

Place = tuple[Any, Any]  # a container and a key or index in it


def places(value: Any) -> list[Place]:
    """Every place in a tree where a value stands."""
    found: list[Place] = []
    waiting = [value]
    while waiting:
        at = waiting.pop()
        keys: Sequence[Any] = list(at) if isinstance(at, dict) else range(len(at)) if isinstance(at, list) else ()
        for key in keys:
            found.append((at, key))
            waiting.append(at[key])
    return found


def value_changed(rng: Random, body: Body, names: Sequence[str]) -> Body:
    """Junk in one field: one of those that are there, or any that there could be."""
    changed = copy.deepcopy(body)
    for _ in range(rng.choice((1, 1, 2))):
        if rng.random() < 0.5 and names:
            changed[rng.choice(names)] = copy.deepcopy(rng.choice(JUNK))
        else:
            container, key = rng.choice(places(changed))
            container[key] = copy.deepcopy(rng.choice(JUNK))
    return changed


def tree_changed(rng: Random, body: Body) -> object:
    """Another shape: something left out, twice, wrapped, swapped, renamed, or very deep."""
    changed = copy.deepcopy(body)
    everywhere = places(changed)
    container, key = rng.choice(everywhere)
    what = rng.randrange(8)
    if what == 0:
        del container[key]
    elif what == 1:
        container[key] = [container[key]]
    elif what == 2:
        container[key] = {"value": container[key]}
    elif what == 3:
        other, place = rng.choice(everywhere)
        container[key], other[place] = copy.deepcopy(other[place]), copy.deepcopy(container[key])
    elif what == 4 and isinstance(container, dict):
        name = str(key)
        container[rng.choice((name.upper(), name + "s", name[:-1], f" {name}", "__proto__", name * 20))] = (
            container.pop(key)
        )
    elif what == 5:
        return Object(*changed.items(), *[(name, changed[name]) for name in rng.sample(sorted(changed), 1)])
    elif what == 6:
        container[key] = deep(rng.choice((10, 63, 64, 65, 200, 5000)), rng.choice(("list", "object")))
    else:
        return [changed, [], changed, "text", 5, None][rng.randrange(6)]
    return changed


def deep(levels: int, form: str) -> Raw:
    """JSON so many levels deep."""
    opening, closing = ("[", "]") if form == "list" else ('{"a": ', "}")
    return Raw(opening * levels + "1" + closing * levels)


def bytes_changed(rng: Random, body: object) -> str:
    """The body's bytes, damaged."""
    text = render(body)
    at = rng.randrange(len(text) + 1)
    what = rng.randrange(9)
    if what == 0:
        return text[:at]
    if what == 1:
        return text[:at] + chr(rng.randrange(256)) + text[at + 1 :]
    if what == 2:
        return text[:at] + rng.choice(("\x00", "\xff", "\xc0\x80", "\xed\xa0\x80", "\xf5\x80\x80\x80")) + text[at:]
    if what == 3:
        return rng.choice(("\xef\xbb\xbf", "\xff\xfe", " \n\t", "\x1e", ")]}',\n")) + text
    if what == 4:
        return text + rng.choice(("}", "{}", ",", "\x00", "//", text, "]"))
    if what == 5:
        return text.encode(rng.choice(("utf-16", "utf-32", "utf-7"))).decode("latin-1")
    if what == 6:
        return text.replace('"', "'") if rng.random() < 0.5 else text.replace(":", "=")
    if what == 7:
        return "".join(chr(rng.randrange(256)) for _ in range(rng.randint(0, 80)))
    end = min(len(text), at + rng.randint(1, 20))
    return text[:at] + text[at:end] * rng.choice((2, 3, 50)) + text[end:]


def with_text(rng: Random, body: Body, text: str) -> str:
    """The body with `text` for one of its strings, as UTF-8 or escaped."""
    changed = copy.deepcopy(body)
    strings = [(container, key) for container, key in places(changed) if isinstance(container[key], str)]
    if strings:
        container, key = rng.choice(strings)
        container[key] = text
    if rng.random() < 0.5:
        return render(changed)
    written = render(changed)
    try:
        return as_bytes(written.encode("ascii").decode("unicode_escape") if "\\u" not in written else written)
    except UnicodeError:
        return written
