"""Rows of a table as lines that can be searched: every value after its column's name."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from components.converted_text import MAX_CHARACTERS
from components.typed_values import typed
from database.errors import InvalidInputError


def row_lines(rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """
    Render a table.

    :param rows: Its rows. The first that has values names the columns, unless it has a number, a date or a gap.
    :returns: `column: value; column: value` for each row that has values.
    :raises InvalidInputError: If it becomes too long.
    """
    header: list[str] | None = None
    length = 0
    for row in rows:
        values = [_text(value) for value in row]
        if not any(values):
            continue
        if header is None:
            if _names_columns(row, values):
                header = values
                continue
            header = []
        line = _line(header, values)
        length += len(line) + 1
        if length > MAX_CHARACTERS:
            raise InvalidInputError(f"its text has more than {MAX_CHARACTERS:,} characters")
        yield line
    if header and not length:
        yield "; ".join(header)


def _names_columns(row: Sequence[Any], values: list[str]) -> bool:
    named = values[: 1 + max(index for index, value in enumerate(values) if value)]
    return all(named) and all(isinstance(typed(value), str) for value in named) and not any(map(_is_no_name, row))


def _is_no_name(value: Any) -> bool:
    return value is not None and not isinstance(value, str)


def _line(header: list[str], values: list[str]) -> str:
    if len(values) == 1 and not header:
        return values[0]
    names = [*header, *(f"column {number}" for number in range(len(header) + 1, len(values) + 1))]
    return "; ".join(f"{name}: {value}" for name, value in zip(names, values, strict=False) if value)


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float() if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        case datetime.datetime() if value.time() == datetime.time():
            return value.date().isoformat()
        case datetime.date() | datetime.time():
            return value.isoformat()
    return " ".join(str(value).split())
