"""
Names of metadata fields: keys joined by dots, `author.name`; a key that has a dot itself stands in backquotes: `` `a.b`.c ``.

Haystack's own filters split at every dot, so that a key with a dot cannot be named there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_QUOTED = re.compile(r"`((?:[^`]|``)+)`(?=\.|\Z)")


def split_name(name: str) -> list[str]:
    """
    The keys of a field's name, outermost first.

    :param name: Keys joined by dots; in backquotes, a dot is part of the key, and two backquotes are one.
    """
    keys, place = [], 0
    while True:
        if quoted := _QUOTED.match(name, place):
            keys.append(quoted[1].replace("``", "`"))
            end = quoted.end()
        else:
            end = name.find(".", place)
            end = len(name) if end < 0 else end
            keys.append(name[place:end])
        if end >= len(name):
            return keys
        place = end + 1


def join_keys(keys: Sequence[str]) -> str:
    """The name that `split_name` reads as these keys."""
    return ".".join(map(_written, keys))


def _written(key: str) -> str:
    return f"`{key.replace('`', '``')}`" if "." in key or key.startswith("`") else key
