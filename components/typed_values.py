"""What a text stands for."""

from __future__ import annotations

import math
import re

_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[+-]?((0|[1-9][0-9]*)\.[0-9]+([eE][+-]?[0-9]+)?|(0|[1-9][0-9]*)[eE][+-]?[0-9]+)")


def typed(text: str) -> str | int | float | bool:
    """
    The value that a text stands for.

    Integers, decimal numbers, `true` and `false` become what they are in JSON. Everything else stays text: dates, and
    numbers that would not be written the same way again, such as `007`.

    :param text: What was written.
    """
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    return text
