"""Named SQL statements, kept in `.sql` files beside the code that runs them."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

_NAME = re.compile(r"^-- (\w+) --\s*$", re.MULTILINE)


@cache
def statements(path: Path) -> dict[str, str]:
    """
    Read a file of named statements.

    Each begins with a line `-- name --`; the comment lines below it say what it does.

    :param path: The `.sql` file.
    :returns: Statement by name, in the file's order.
    :raises ValueError: If a name stands twice, or SQL before the first name.
    """
    head, *parts = _NAME.split(path.read_text(encoding="utf-8"))
    names, texts = parts[0::2], parts[1::2]
    if len(set(names)) < len(names):
        raise ValueError(f"{path.name} names a statement twice")
    if any(line and not line.startswith("--") for line in head.splitlines()):
        raise ValueError(f"{path.name} has SQL before its first name")
    return {name: text.strip() for name, text in zip(names, texts, strict=True)}
