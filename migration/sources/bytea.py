"""
A table with float32 packed in a bytea column as a source: for moving its rows into a documents table of their own.

The other way, a vector column beside the bytes in the same table, is `migration.bytea`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Composable

from database.errors import InvalidInputError
from database.sql import statements
from migration.bytea_table import STATEMENTS, escaped, find_relation
from migration.bytea_values import Packing, suspicions
from migration.source import Distance, Loss, Part, Position, Record

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from psycopg import Connection

    from database.connection import Database

PAGE = 1000
SAMPLE = 1000

_SQL = statements(Path(__file__).with_suffix(".sql"))
_PLAIN = {
    "smallint",
    "integer",
    "bigint",
    "real",
    "double precision",
    "boolean",
    "text",
    "uuid",
    "numeric",
    "json",
    "jsonb",
}
_TEXT = ("character", "timestamp", "date", "time")
"""Types whose text says all that they hold; dates and times are written as JSON has them."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """
    Which column becomes what.

    :param embedding: The bytea column.
    :param id: Unique and not NULL; by default the primary key's only column.
    :param content: The text; `None` for none.
    :param meta: Columns that become metadata under their names; `None` takes all that are left.
    :param json: A json or jsonb column whose keys become metadata.
    """

    embedding: str
    id: str | None = None
    content: str | None = None
    meta: Sequence[str] | None = None
    json: str | None = None


class ByteaSource:
    """
    Such a table. Its rows are read in the order of the id, a page at a time.

    :param database: Where it is, as a role that may read it.
    :param table: As SQL writes it.
    :param columns: Which column becomes what.
    :param dimension: Numbers per vector; `None` takes what most rows have.
    :param big_endian: Byte order; `None` means little-endian, and that bytes which look otherwise are refused.
    :param distance: What the vectors were searched by.
    """

    kind = "bytea column"

    def __init__(
        self,
        database: Database,
        table: str,
        columns: Columns,
        *,
        dimension: int | None = None,
        big_endian: bool | None = None,
        distance: Distance = "cosine",
    ) -> None:
        self.columns, self.big_endian, self.distance = columns, big_endian, distance
        self._stack = ExitStack()
        self._connection: Connection[Any] = self._stack.enter_context(database.unpooled())
        self.relation = find_relation(self._connection, table)
        self._connection.execute(STATEMENTS["session"])
        self._types = _types(self._connection, self.relation.oid)
        self.id = self._id()
        self._check()
        self.dimension = dimension or self._dimension()
        self.version = f"PostgreSQL {self._connection.info.server_version // 10_000}"
        self.location = f"{database.name} {self.relation.schema}.{self.relation.name}.{columns.embedding}"

    def parts(self) -> list[Part]:
        """The table."""
        count = self._execute("count").fetchone()
        facts = {
            "id": self.id,
            "content": self.columns.content,
            "meta": self._meta_columns(),
            "json": self.columns.json,
            "left_out_columns": [name for name in self._types if name not in self._taken()],
            "byte_order": "big-endian" if self.big_endian else "little-endian",
        }
        name = f"{self.relation.schema}.{self.relation.name}"
        return [
            Part(
                id=name,
                name=self.relation.name,
                count=count[0] if count else 0,
                dimension=self.dimension,
                distance=self.distance,
                facts=facts,
                refusal=self._refusal(),
            )
        ]

    def records(self, part: Part, *, after: Position | None = None) -> Iterator[Record]:
        """The rows, in the order of their ids."""
        names = self._meta_columns()
        position = None if after is None else str(after)
        while True:
            beyond = SQL("true") if position is None else SQL("t.{id} > %(after)s::text::{type}")
            condition = beyond.format(id=escaped(self.id), type=SQL(self._types[self.id].replace("%", "%%")))
            rows = self._execute("page", beyond=condition, after=position, limit=PAGE).fetchall()
            if not rows:
                return
            vectors = _unpacked([row[2] for row in rows], big_endian=bool(self.big_endian))
            for (id_, content, packed, extra, *values), vector in zip(rows, vectors, strict=True):
                meta, losses = self._meta(names, values, extra)
                if packed is not None and vector is None:
                    losses.append(Loss("unreadable", "embedding", packed))
                yield Record(id_, content, meta, vector, id_, tuple(losses))
            position = rows[-1][0]

    def fingerprint(self) -> str:
        """A hash over every row, whatever their order."""
        row = self._execute("fingerprint").fetchone()
        return hashlib.sha256(repr(row).encode()).hexdigest()

    def close(self) -> None:
        """Close the connection."""
        self._stack.close()

    def _meta(self, names: list[str], values: Sequence[Any], extra: str | None) -> tuple[dict[str, Any], list[Loss]]:
        """Metadata of the columns, then that of the JSON column; a key that both have is named."""
        losses: list[Loss] = []
        meta: dict[str, Any] = {}
        for name, value in zip(names, values, strict=True):
            meta[name] = self._plain(name, value, losses)
        inner = None if extra is None else _parsed(extra, self.columns.json or "", losses)
        if inner is None:
            return meta, losses
        for key, value in (inner if isinstance(inner, dict) else {self.columns.json or "": inner}).items():
            if key in meta:
                losses.append(Loss("unsupported_value", f"meta.{key}", value))
            else:
                meta[key] = value
        return meta, losses

    def _plain(self, name: str, value: Any, losses: list[Loss]) -> Any:
        kind = _base(self._types[name])
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, Decimal):
            return _number(value, f"meta.{name}", losses)
        if kind in ("json", "jsonb"):
            return _parsed(value, name, losses)
        if kind not in _PLAIN and not kind.startswith(_TEXT):
            losses.append(Loss("unsupported_value", f"meta.{name}", value))
        return value

    # The statements

    def _execute(self, name: str, *, beyond: Composable | None = None, **parameters: Any) -> Any:
        columns = [
            self._text(self.id),
            SQL("NULL::text") if self.columns.content is None else self._text(self.columns.content),
            escaped(self.columns.embedding),
            SQL("NULL::text") if self.columns.json is None else self._text(self.columns.json),
            *map(self._selected, self._meta_columns()),
        ]
        statement = SQL(_SQL[name]).format(
            table=escaped(self.relation.schema, self.relation.name),
            id=escaped(self.id),
            embedding=escaped(self.columns.embedding),
            columns=SQL(", ").join(columns),
            beyond=beyond or SQL("true"),
        )
        cursor = self._connection.cursor(row_factory=tuple_row, binary=True)
        return cursor.execute(statement, parameters)

    def _text(self, name: str) -> Composable:
        return SQL("{}::text").format(escaped(name))

    def _selected(self, name: str) -> Composable:
        kind = _base(self._types[name])
        if kind.startswith(("timestamp", "date", "time")):
            return SQL("to_jsonb({}) #>> '{{}}'").format(escaped(name))
        if kind in _PLAIN and kind not in ("json", "jsonb", "uuid", "text"):
            return escaped(name)
        return self._text(name)

    def _taken(self) -> set[str | None]:
        return {self.columns.embedding, self.id, self.columns.content, self.columns.json, *self._meta_columns()}

    def _meta_columns(self) -> list[str]:
        columns = self.columns
        if columns.meta is not None:
            return list(columns.meta)
        return [name for name in self._types if name not in (columns.embedding, self.id, columns.content, columns.json)]

    # What is there

    def _id(self) -> str:
        rows = self._connection.execute(STATEMENTS["keys_alone"], {"table": self.relation.oid}).fetchall()
        unique = [row["name"] for row in rows]
        if self.columns.id is None and unique:
            return str(unique[0])
        if self.columns.id in unique:
            return str(self.columns.id)
        raise InvalidInputError(
            f"The id of {self.relation.shown} must be a column with a unique index of its own and NOT NULL, "
            f"such as {', '.join(unique) or 'none that it has'}, but is {self.columns.id or 'not named'}.",
        )

    def _check(self) -> None:
        named = [self.columns.embedding, self.columns.content, self.columns.json, *(self.columns.meta or ())]
        for name in named:
            if name is not None and name not in self._types:
                raise InvalidInputError(
                    f"A column {name} was expected in {self.relation.shown}, but it has {', '.join(self._types)}."
                )
        if (kind := self._types[self.columns.embedding]) != "bytea":
            raise InvalidInputError(f"Column {self.columns.embedding} must be of type bytea, but is {kind}.")

    def _dimension(self) -> int | None:
        row = self._execute("dimension").fetchone()
        return row[0] if row else None

    def _refusal(self) -> str | None:
        if self.big_endian is not None or not self.dimension:
            return None
        packing = Packing(self.dimension)
        rows = self._execute("sample", limit=SAMPLE).fetchall()
        doubts = suspicions([value for (value,) in rows if len(value) == packing.size], packing)
        return f"Its bytes should be little-endian float32, but {doubts[0]}; name their order." if doubts else None


def _types(connection: Connection[Any], oid: int) -> dict[str, str]:
    return {row["name"]: row["type"] for row in connection.execute(STATEMENTS["columns"], {"table": oid})}


def _base(kind: str) -> str:
    return kind.partition("(")[0]


def _unpacked(values: Sequence[bytes | None], *, big_endian: bool) -> list[NDArray[np.float32] | None]:
    """A page's vectors, in one go where all are of one length; `None` where there are no bytes, or no whole numbers."""
    dtype = ">f4" if big_endian else "<f4"
    lengths = {len(value) if value is not None else -1 for value in values}
    if len(lengths) == 1 and (length := lengths.pop()) > 0 and length % 4 == 0:
        joined = b"".join(value for value in values if value is not None)
        return list(np.frombuffer(joined, dtype).astype(np.float32).reshape(len(values), -1))
    return [
        np.frombuffer(value, dtype).astype(np.float32) if value and len(value) % 4 == 0 else None for value in values
    ]


def _parsed(text: str, name: str, losses: list[Loss]) -> Any:
    """JSON; a number that a float does not hold exactly stays text, and is a loss."""

    def number(written: str) -> float | str:
        value = float(written)
        if Decimal(repr(value)) == Decimal(written):
            return value
        losses.append(Loss("unsupported_value", f"meta.{name}", written))
        return written

    return json.loads(text, parse_float=number)


def _number(value: Decimal, field: str, losses: list[Loss]) -> Any:
    """A numeric as an integer or a float, where one of them holds it; otherwise as text."""
    if not value.is_finite():
        return float(value)
    if value == value.to_integral_value():
        return int(value)
    if Decimal(repr(float(value))) == value:
        return float(value)
    losses.append(Loss("unsupported_value", field, str(value)))
    return str(value)
