"""
Metadata fields: which occur, and those that are declared, each with an index of its own on the documents table.

Declaring builds the index without locking the table. What an interrupted build leaves behind is cleaned up by the next one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg.sql import SQL, Composed, Identifier, Literal

from database.document_queries import Query
from database.errors import DatabaseError, GuardError, InvalidInputError
from database.field_names import join_keys, split_name
from database.filter_values import is_storable_text
from database.filters import field_value, indexed_expression
from database.index_build import briefly
from database.sql import statements

if TYPE_CHECKING:
    from psycopg import Connection

    from database.connection import Database

TYPES = ("number", "text", "boolean", "date")
MAX_DEPTH = 8
"""Levels of mappings that are looked into for fields, and that a declared field may lie in."""

STATISTICS = 200
"""Of an index's expression: 200 commonest values and 200 ranges; PostgreSQL's own default is 100. Planning an `in` of
10,000 values compares each with all of them."""

SAMPLED_PAGES = 150
MAX_FIELDS = 5000

_SQL = statements(Path(__file__).with_suffix(".sql"))
_PARTITIONS = statements(Path(__file__).with_name("index_build.sql"))["partitions"]
Progress = Callable[[str, int, int], None]
"""Called with what PostgreSQL is doing, and how many blocks are done and to be done."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """
    A field that occurs in the metadata of a table, or is declared for it.

    :param name: Keys joined by dots, see `database.field_names`.
    :param documents: How many documents have it.
    :param types: How many of them, by type: number, text, date (text that is one), boolean, list, mapping, null.
    :param declared: The type that it is declared as, or `None`.
    :param indexed: Whether its index is there and valid.
    """

    name: str
    documents: int
    types: dict[str, int]
    declared: str | None = None
    indexed: bool = False


@dataclass(frozen=True, kw_only=True)
class DeclaredField:
    """A declared field and its index."""

    name: str
    type: str
    index_name: str
    declared_at: datetime
    indexed: bool


def list_fields(database: Database, table_name: str) -> list[Field]:
    """Every field that occurs in a table, by reading all of it, and every declared one."""
    table, params = Identifier(table_name), {"depth": MAX_DEPTH}
    types: dict[str, dict[str, int]] = {}
    for row in database.read(SQL(_SQL["occurring_fields"]).format(table=table), params):
        types.setdefault(join_keys(row["keys"]), {})[row["type"]] = row["documents"]
    declared = {field.name: field for field in declared_fields(database, table_name)}
    return [
        Field(
            name=name,
            documents=sum(types.get(name, {}).values()),
            types=types.get(name, {}),
            declared=declared[name].type if name in declared else None,
            indexed=name in declared and declared[name].indexed,
        )
        for name in sorted(types.keys() | declared.keys())
    ]


def declared_fields(database: Database, table_name: str) -> list[DeclaredField]:
    """The fields that are declared for a table."""
    return [DeclaredField(**row) for row in database.read(_SQL["declared_fields"], {"table_name": table_name})]


def sample(table: Identifier) -> Query:
    """Which fields occur in a sample of a table, with the JSON types of their values; `sampled` reads the rows."""
    statement = SQL(_SQL["sampled_fields"]).format(table=table, table_name=Literal(table.as_string()))
    return Query(statement=statement, params={"pages": SAMPLED_PAGES, "depth": MAX_DEPTH, "fields": MAX_FIELDS})


def sampled(rows: Sequence[Mapping[str, Any]]) -> dict[str, set[str]]:
    """Turn the rows of `sample` into JSON types by field."""
    return {join_keys(row["keys"]): set(row["types"]) for row in rows}


def occurs(table: Identifier, name: str) -> Query:
    """Whether any document has a field, in one row `occurs`."""
    value, params = field_value(name, prefix="field")
    return Query(statement=SQL(_SQL["field_occurs"]).format(table=table, value=value), params=params)


def declare_field(
    owner: Database, table_name: str, name: str, type_: str, *, progress: Progress | None = None
) -> DeclaredField:
    """
    Build the index that serves filters on a field, and remember it; does nothing where that is done.

    :param owner: The database, connected as the owner of the schema.
    :param table_name: The documents table.
    :param name: The field, with or without `meta.`.
    :param type_: One of `TYPES`. Values of other types stay where they are; filters on them are not served.
    :param progress: Called every half second.
    :raises InvalidInputError: If the name or the type cannot be used.
    :raises GuardError: If another field of the table is being declared.
    """
    name = checked_name(name)
    if type_ not in TYPES:
        raise InvalidInputError(f"A field is declared as one of {', '.join(TYPES)}, but this one as {type_!r}.")
    index_name = index_name_for(table_name, name, type_)
    with _turn(owner, table_name) as connection:
        known = {field.name: field for field in declared_fields(owner, table_name)}.get(name)
        if not _is_valid(connection, index_name):
            _drop_index(connection, index_name)
            _build(owner, connection, table_name, index_name, _expression(name, type_), progress)
        if known is None or known.index_name != index_name or not known.indexed:
            _set_statistics(connection, index_name)
            connection.execute(SQL("ANALYZE {}").format(Identifier(table_name)))
            field = {"table_name": table_name, "name": name, "type": type_, "index_name": index_name}
            connection.execute(_SQL["remember_field"], field)
        if known is not None and known.index_name != index_name:
            _drop_index(connection, known.index_name)
    return next(field for field in declared_fields(owner, table_name) if field.name == name)


def drop_field(owner: Database, table_name: str, name: str) -> DeclaredField:
    """
    Drop a declared field's index; its values stay.

    :returns: What was declared.
    :raises InvalidInputError: If it is not declared.
    """
    name = checked_name(name)
    with _turn(owner, table_name) as connection:
        known = {field.name: field for field in declared_fields(owner, table_name)}
        if name not in known:
            raise InvalidInputError(
                f"A declared field of {table_name} was expected, but {name} is not; "
                f"these are: {', '.join(known) or 'none'}."
            )
        _drop_index(connection, known[name].index_name)
        connection.execute(_SQL["forget_field"], {"table_name": table_name, "name": name})
    return known[name]


def declare_as(connection: Connection[Any], *, source: str, target: str) -> list[str]:
    """
    Declare for an empty table, in the connection's transaction, what is declared for another one.

    :param source: The table whose declared fields are taken.
    :param target: The table that gets them.
    :returns: Their names.
    """
    rows = connection.execute(_SQL["declared_fields"], {"table_name": source}).fetchall()
    for row in rows:
        index_name = index_name_for(target, row["name"], row["type"])
        expression = _expression(row["name"], row["type"])
        connection.execute(_creation("CREATE INDEX {} ON {}", index_name, Identifier(target), expression))
        _set_statistics(connection, index_name)
        field = {"table_name": target, "name": row["name"], "type": row["type"], "index_name": index_name}
        connection.execute(_SQL["remember_field"], field)
    return [row["name"] for row in rows]


def forget_table(connection: Connection[Any], table_name: str) -> None:
    """Forget what was declared for a table that is dropped."""
    connection.execute(_SQL["forget_table"], {"table_name": table_name})


def checked_name(name: str) -> str:
    """
    A field's name in its usual form.

    :raises InvalidInputError: If no document can have such a field, or it lies too deep.
    """
    keys = split_name(name.removeprefix("meta."))
    if not name or not all(map(is_storable_text, keys)):
        raise InvalidInputError(f"A field's name must be text that PostgreSQL can hold, but is {name!r}.")
    if len(keys) > MAX_DEPTH:
        raise InvalidInputError(f"A declared field lies in at most {MAX_DEPTH - 1} mappings, but {name} in more.")
    return join_keys(keys)


def index_name_for(table_name: str, name: str, type_: str) -> str:
    """The name of a field's index: at most 63 bytes, whatever the field is called."""
    digest = hashlib.sha256(f"{type_} {name}".encode()).hexdigest()[:10]
    return f"{table_name.encode()[:46].decode(errors='ignore')}_field_{digest}"


def _expression(name: str, type_: str) -> Composed:
    """What a field's index is on. Its keys stand there as literals, quoted by libpq: CREATE INDEX takes no parameters."""
    keys = split_name(name)
    expression = indexed_expression(type_, f"(meta{' -> {}::text' * len(keys)})")
    return SQL(expression).format(*map(Literal, keys))  # type: ignore[arg-type]


def _creation(start: LiteralString, index_name: str, table: Identifier, expression: Composed) -> Composed:
    return SQL(start + " (({}))").format(Identifier(index_name), table, expression)


def _set_statistics(connection: Connection[Any], index_name: str) -> None:
    """On a partitioned table each part of the index has its own; what is new takes those of the whole."""
    parts = connection.execute(_SQL["partition_indexes"], {"index_name": index_name}).fetchall()
    for name in [Identifier(index_name).as_string(), *(row["name"] for row in parts)]:
        statement = SQL("ALTER INDEX {} ALTER COLUMN 1 SET STATISTICS {}").format(SQL(name), Literal(STATISTICS))
        connection.execute(statement)


def _is_valid(connection: Connection[Any], index_name: str) -> bool:
    row = connection.execute(_SQL["index_is_valid"], {"index_name": index_name}).fetchone()
    return bool(row and row["valid"])


def _drop_index(connection: Connection[Any], index_name: str) -> None:
    """Without a lock that anybody waits for, or, as PostgreSQL drops one of a partitioned table, with one that is had at once."""
    if _is_partitioned(connection, index_name):
        _briefly(connection, SQL("DROP INDEX IF EXISTS {}").format(Identifier(index_name)))
    else:
        connection.execute(SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(Identifier(index_name)))


def _briefly(connection: Connection[Any], statement: Composed) -> None:
    if not briefly(connection, [statement]):
        raise DatabaseError(
            "A lock on the documents table was expected soon, but other transactions hold it.",
            hint="Run it again when they have ended.",
        )


def _is_partitioned(connection: Connection[Any], name: str) -> bool:
    row = connection.execute(_SQL["is_partitioned"], {"name": name}).fetchone()
    return bool(row and row["yes"])


@contextmanager
def _turn(owner: Database, table_name: str) -> Iterator[Connection[Any]]:
    """A connection of its own, as concurrent building knows no transaction; one at a time per table."""
    with owner.unpooled() as connection:
        found = connection.execute(_SQL["table_exists"], {"table_name": table_name}).fetchone()
        if not (found and found["found"]):
            raise InvalidInputError(f"A documents table {table_name} was expected, but is not there.")
        row = connection.execute(_SQL["take_turn"], {"table_name": table_name}).fetchone()
        if not (row and row["taken"]):
            raise GuardError(
                f"Another field of {table_name} is being declared or dropped.",
                hint="Wait until that is done, then run it again.",
            )
        try:
            yield connection
        finally:
            if not connection.closed and not connection.broken:
                connection.execute(_SQL["release_turn"], {"table_name": table_name})


def _build(
    owner: Database,
    connection: Connection[Any],
    table_name: str,
    index_name: str,
    expression: Composed,
    progress: Progress | None,
) -> None:
    done, pid = Event(), connection.info.backend_pid
    watcher = Thread(target=_watch, args=(owner, pid, progress, done), daemon=True) if progress else None
    if watcher:
        watcher.start()
    try:
        _build_concurrently(connection, table_name, index_name, expression)
    except BaseException:  # interrupted, too: what is left of the index costs every write, and serves nobody
        if not connection.closed and not connection.broken:
            _drop_index(connection, index_name)
        raise
    finally:
        done.set()
        if watcher:
            watcher.join()


def _build_concurrently(connection: Connection[Any], table_name: str, index_name: str, expression: Composed) -> None:
    """On a partitioned table part by part, and each is attached."""
    table = Identifier(table_name)
    if not _is_partitioned(connection, table_name):
        connection.execute(_creation("CREATE INDEX CONCURRENTLY {} ON {}", index_name, table, expression))
        return
    _briefly(connection, _creation("CREATE INDEX {} ON ONLY {}", index_name, table, expression))
    for part in connection.execute(_PARTITIONS, {"table": table.as_string()}).fetchall():
        made = SQL(part["index"])
        place = SQL(f"{part['schema']}.{part['name']}")
        connection.execute(SQL("CREATE INDEX CONCURRENTLY {} ON {} (({}))").format(made, place, expression))
        attach = SQL("ALTER INDEX {} ATTACH PARTITION {}").format(Identifier(index_name), made)
        _briefly(connection, attach)


def _watch(owner: Database, pid: int, progress: Progress, done: Event) -> None:
    while not done.wait(0.5):
        try:
            rows = owner.read(_SQL["build_progress"], {"pid": pid})
        except DatabaseError:  # whoever builds will say so
            return
        for row in rows:
            progress(row["phase"], row["blocks_done"], row["blocks_total"])
