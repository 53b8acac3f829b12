"""What the tables of a SQLite database are: as SQLAlchemy reflects them, and what it leaves out, from SQLite's own pragmas."""

from __future__ import annotations

import re
import sqlite3
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, inspect, types
from sqlalchemy.engine import Inspector
from sqlalchemy.exc import SAWarning
from sqlalchemy.pool import StaticPool

from database.errors import InvalidInputError
from database.sql import statements
from migration.relational.tables import Column, Default, ForeignKey, Index, IndexPart, Kind, Table
from migration.sources.sqlite_expressions import checks, collated, deferred, index_parts, is_literal, moment, tokens

_SQL = statements(Path(__file__).with_suffix(".sql"))

_ROW_NUMBERS = ("rowid", "_rowid_", "oid")
_KINDS: list[tuple[Any, Kind]] = [
    (types.Boolean, "boolean"),
    (types.DateTime, "timestamp"),
    (types.Date, "date"),
    (types.Time, "time"),
    (types.JSON, "json"),
    (types.Integer, "integer"),
    (types.Float, "real"),
    (types.Numeric, "numeric"),
    (types.LargeBinary, "blob"),
    (types.String, "text"),
]
_BY_NAME: dict[str, Kind] = {
    "UUID": "uuid",
    "GUID": "uuid",
    "TIMESTAMPTZ": "timestamp",
    "TIMESTAMP WITH TIME ZONE": "timestamp",
    "TIMESTAMP WITHOUT TIME ZONE": "timestamp",
    "DATETIME2": "timestamp",
    "BYTEA": "blob",
}
_EXACT_NUMBER = re.compile(r"NUM|DEC|MONEY")


class Reflection:
    """
    The tables of a database.

    :param connection: Open for reading.
    :param tables: By name.
    :param left_out: What is there and is no table with rows of its own: `{name, reason}`.
    :param collated: By table, the columns that compare other than byte by byte.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.left_out: list[dict[str, str]] = []
        self.collated: dict[str, set[str]] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SAWarning)  # about what is read from the pragmas instead
            self.tables = self._reflected()

    def _reflected(self) -> list[Table]:
        inspector = inspect(create_engine("sqlite://", creator=lambda: self.connection, poolclass=StaticPool))
        listed = {row[1]: row for row in self.connection.execute("PRAGMA main.table_list")}
        found = []
        for kind, name, of, sql in self.connection.execute(_SQL["entries"]).fetchall():
            reason = _reason_left_out(kind, of, sql, listed.get(name))
            if reason:
                self.left_out.append({"name": name, "reason": reason})
            elif kind == "table":
                found.append(self._table(inspector, name, sql, *map(bool, listed[name][4:6])))
        return found

    def _table(self, inspector: Inspector, name: str, sql: str, without_rowid: bool, strict: bool) -> Table:
        declared = {row[1]: row[2] for row in self._pragma("table_xinfo", name)}
        columns = tuple(
            _column(
                column, declared[column["name"]], self._default(column["default"], declared[column["name"]], strict)
            )
            for column in inspector.get_columns(name)
        )
        self.collated[name] = collated(sql)
        taken = {column.name.casefold() for column in columns}
        number = next((known for known in _ROW_NUMBERS if known not in taken), None)
        key = tuple(inspector.get_pk_constraint(name)["constrained_columns"])
        indexes = self._pragma("index_list", name)
        row_number = None if without_rowid else number
        if not without_rowid and number is None:
            raise InvalidInputError(
                f"A way to tell the rows of {name} apart was expected, but its columns hide rowid, _rowid_ and oid.",
                hint="Rename one of these columns in a copy of the database.",
            )
        stands_for_number = len(key) == 1 and not without_rowid and all(index[3] != "pk" for index in indexes)
        words = [token.word for token in tokens(sql)]
        return Table(
            name=name,
            columns=columns,
            rows=self._one(_SQL["count"].format(table=quoted(name))),
            key=key,
            row_number=row_number,
            numbered_by=key[0] if stands_for_number else None,
            last_number=self._last_number(name) if "AUTOINCREMENT" in words else None,
            checks=tuple(checks(sql)),
            indexes=tuple(index for index in map(self._index, reversed(indexes)) if index is not None),
            foreign_keys=tuple(self._foreign_keys(inspector, name, columns, deferred(sql))),
        )

    def _default(self, text: str | None, declared: str, strict: bool) -> Default | None:
        """A literal as SQLite would store it in such a column, which depends on its type: found out by storing it."""
        if text is None or text.upper() == "NULL":
            return None
        if not is_literal(text):
            return Default(text=text, moment=moment(text))
        self.connection.execute("DROP TABLE IF EXISTS temp.given")
        kind, rules = (declared, "STRICT") if strict else (_plain_type(declared), "")  # ANY is another type there
        self.connection.execute(f"CREATE TEMP TABLE given (c {kind} DEFAULT ({text})) {rules}")
        self.connection.execute("INSERT INTO temp.given DEFAULT VALUES")
        return Default(text=text, value=self._one("SELECT c FROM temp.given"))

    def _last_number(self, table: str) -> int | None:
        number = self._one(_SQL["last_number"], table)
        return number if isinstance(number, int) else None

    def _index(self, listed: Sequence[Any]) -> Index | None:
        """An index; of those of primary keys only one that keeps out more than equal values."""
        _, name, unique, origin, _ = listed
        texts, where = index_parts(self._one(_SQL["index"], name) or "")
        parts = [
            IndexPart(
                column=column,
                expression=texts[place] if number == -2 else None,
                collation=collation.upper(),
                descending=bool(descending),
            )
            for place, number, column, descending, collation, is_key in self._pragma("index_xinfo", name)
            if is_key
        ]
        if origin == "pk" and all(part.collation == "BINARY" for part in parts):
            return None
        return Index(name=name, parts=tuple(parts), unique=bool(unique), constraint=origin != "c", where=where)

    def _foreign_keys(
        self, inspector: Inspector, table: str, columns: Sequence[Column], waits: list[bool]
    ) -> Iterator[ForeignKey]:
        named = {
            (tuple(known["constrained_columns"]), known["referred_table"]): known
            for known in inspector.get_foreign_keys(table)
        }
        rows = self._pragma("foreign_key_list", table)
        numbers = sorted({row[0] for row in rows}, reverse=True)  # the order in which they were declared
        for number, waiting in zip(numbers, waits, strict=True):
            parts = sorted((row for row in rows if row[0] == number), key=lambda row: int(row[1]))
            to, update, delete = parts[0][2], parts[0][5], parts[0][6]
            given = tuple(part[3] for part in parts)
            known: Any = named.get((given, to), {})
            yield ForeignKey(
                name=known.get("name"),
                columns=tuple(_exactly(name, [column.name for column in columns]) for name in given),
                table=self._table_name(to),
                to_columns=self._referred(to, [part[4] for part in parts]),
                on_delete=delete,
                on_update=update,
                deferred=waiting,
            )

    def _table_name(self, name: str) -> str:
        """A table's name as it was created; references may write it in other letters."""
        return self._one(_SQL["table_name"], name) or name

    def _referred(self, table: str, given: list[str | None]) -> tuple[str, ...]:
        rows = self._pragma("table_xinfo", table)
        if None not in given:
            return tuple(_exactly(str(name), [row[1] for row in rows]) for name in given)
        key = [row[1] for row in sorted(rows, key=lambda row: int(row[5])) if row[5]]
        return tuple(key) if len(key) == len(given) else ()

    def _one(self, sql: str, *values: str) -> Any:
        row = self.connection.execute(sql, values).fetchone()
        return row[0] if row else None

    def _pragma(self, name: str, argument: str) -> list[Any]:
        return self.connection.execute(f"PRAGMA main.{name}({quoted(argument)})").fetchall()


def quoted(name: str) -> str:
    """A name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def _exactly(name: str, known: Sequence[str]) -> str:
    return next((other for other in known if other.casefold() == name.casefold()), name)


def _reason_left_out(kind: str, of: str, sql: str | None, listed: Any) -> str | None:
    if kind == "view":
        return "a view: its query is in SQLite's words"
    if kind == "trigger":
        return f"a trigger on {of}: its program is in SQLite's words"
    if kind == "table" and re.match(r"\s*CREATE\s+VIRTUAL\s", sql or "", re.IGNORECASE):
        return "a virtual table: its data are those of its module"
    if kind == "table" and listed and listed[2] == "shadow":
        return "a table that a virtual table keeps for itself"
    return None


def _plain_type(declared: str) -> str:
    """A declared type that can stand in a statement: its words alone, which is what SQLite looks at."""
    return quoted(re.sub(r"\(.*", "", declared, flags=re.DOTALL)) if declared else ""


def _column(reflected: Any, declared: str, default: Default | None) -> Column:
    kind = reflected["type"]
    name = re.sub(r"\(.*|GENERATED ALWAYS", "", declared.upper(), flags=re.DOTALL).strip()
    known: Kind = next((known for type_, known in _KINDS if isinstance(kind, type_)), "any")
    chosen = _BY_NAME.get(name, known)
    if chosen == "numeric" and not _EXACT_NUMBER.search(name):
        chosen = "any"  # SQLAlchemy's answer to any name that it does not know
    length = getattr(kind, "length", None)
    return Column(
        name=reflected["name"],
        declared=declared,
        kind=chosen,
        length=length if chosen == "text" else None,
        precision=getattr(kind, "precision", None) if chosen == "numeric" else None,
        scale=getattr(kind, "scale", None) or 0,
        not_null=not reflected["nullable"],
        default=default,
        generated="computed" in reflected,
    )
