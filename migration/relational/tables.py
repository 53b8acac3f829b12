"""
What is known of a table before it is moved: columns, keys, indexes, references; words that any relational source has.

Values are `None`, `int`, `float`, `str` and `bytes`, each cell of its own kind whatever its column was declared as. Bytes
of a text that are no UTF-8 stand in it as Python's surrogate escapes, so that none is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

Value: TypeAlias = "int | float | str | bytes | None"
Row: TypeAlias = "tuple[Value, ...]"
"""The row's position (its hidden number, or its place where it has none), then its columns."""

Kind = Literal[
    "any", "blob", "boolean", "date", "integer", "json", "numeric", "real", "text", "time", "timestamp", "uuid"
]


@dataclass(frozen=True, kw_only=True)
class Default:
    """
    What a column holds where nothing is given.

    :param text: As it was written.
    :param value: As the source would store it, if it is a literal.
    :param moment: `timestamp`, `date`, `time` or `unix`, if it is the time of the insertion, in UTC.
    """

    text: str
    value: Value = None
    moment: str | None = None


@dataclass(frozen=True, kw_only=True)
class Column:
    """
    A column as it was declared.

    :param declared: The type as it was written; empty where there is none.
    :param kind: What that asks for; `any` where it asks for nothing that is known.
    :param length: Most characters of a text.
    :param precision: Digits of a number, with `scale` of them behind the point.
    :param generated: Whether it is computed from others.
    """

    name: str
    declared: str
    kind: Kind
    length: int | None = None
    precision: int | None = None
    scale: int = 0
    not_null: bool = False
    default: Default | None = None
    generated: bool = False


@dataclass(frozen=True, kw_only=True)
class IndexPart:
    """
    A column of an index, or an expression in its place.

    :param collation: How it compares: `BINARY` byte by byte, `NOCASE` and `RTRIM` as SQLite's documentation has them.
    """

    column: str | None
    expression: str | None = None
    collation: str = "BINARY"
    descending: bool = False


@dataclass(frozen=True, kw_only=True)
class Index:
    """
    An index.

    :param constraint: Whether it stands for a UNIQUE in the table's definition, or for a primary key that folds letters.
    :param where: Of which rows it is, as SQL of the source; `None` means all.
    """

    name: str
    parts: tuple[IndexPart, ...]
    unique: bool
    constraint: bool = False
    where: str | None = None


@dataclass(frozen=True, kw_only=True)
class ForeignKey:
    """
    A reference to another table.

    :param to_columns: The columns that it points to; empty where the other table has no key.
    :param on_delete: `CASCADE`, `SET NULL` …; `NO ACTION` is the usual.
    """

    columns: tuple[str, ...]
    table: str
    to_columns: tuple[str, ...]
    name: str | None = None
    on_delete: str = "NO ACTION"
    on_update: str = "NO ACTION"
    deferred: bool = False

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"foreign key ({', '.join(self.columns)}) to {self.table}"


@dataclass(frozen=True, kw_only=True)
class Table:
    """
    A table.

    :param key: Columns of the primary key, in its order.
    :param row_number: The name that the hidden number of a row answers to; `None` where rows have none.
    :param numbered_by: The column that is this number under a name of its own.
    :param last_number: The highest number ever given, where the table remembers it.
    :param checks: Names, which may be `None`, and conditions, as SQL of the source.
    """

    name: str
    columns: tuple[Column, ...]
    rows: int
    key: tuple[str, ...] = ()
    row_number: str | None = None
    numbered_by: str | None = None
    last_number: int | None = None
    checks: tuple[tuple[str | None, str], ...] = ()
    indexes: tuple[Index, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()

    def place(self, column: str) -> int:
        """Where a column's value stands in a `Row`."""
        return 1 + [known.name for known in self.columns].index(column)


class Tables(Protocol):
    """
    A relational source, open for reading.

    :param left_out: What is there and is no table that can be moved: `{name, reason}`.
    """

    kind: str
    location: str
    version: str
    left_out: list[dict[str, str]]

    def tables(self) -> list[Table]:
        """All tables, in a fixed order."""
        ...

    def rows(self, table: Table, *, after: int | None = None) -> Iterator[Row]:
        """
        The table's rows, always in the same order.

        :param after: Go on behind the row of this position.
        """
        ...

    def orphans(self, table: Table, key: ForeignKey, *, gone: dict[str, set[int]]) -> Iterator[tuple[int, Row]]:
        """
        Positions of rows whose reference leads nowhere, and what they refer to.

        :param key: To a table that is there, and to columns of it.
        :param gone: Positions of rows that do not count as being there, by table.
        """
        ...

    def translated(self, expression: str, table: Table, types: dict[str, str]) -> str | None:
        """
        A condition or an expression in PostgreSQL's words; `None` if it cannot be said there with the same meaning.

        :param types: PostgreSQL's types of the table's columns.
        """
        ...

    def fingerprint(self) -> str:
        """A hash of all that is there."""
        ...
