"""The table whose bytes become vectors: what it is called, what tells its rows apart, and what stands in the way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from database.errors import ExtensionMissingError, GuardError, InvalidInputError, SchemaError
from database.sql import statements

if TYPE_CHECKING:
    from psycopg import Connection

STATEMENTS = statements(Path(__file__).with_name("bytea.sql"))
STATE = "synapse_bytea_migrations"
LONGEST_NAME = 63
"""Bytes of a name in PostgreSQL."""

_KINDS = {
    "p": "a partitioned table, on which no index can be built concurrently",
    "v": "a view",
    "m": "a materialized view",
    "f": "a foreign table",
    "S": "a sequence",
    "i": "an index",
    "I": "an index",
    "c": "a type",
    "t": "a TOAST table",
}


@dataclass(frozen=True, kw_only=True)
class ByteaTable:
    """
    A table with a bytea column, and the names of what a migration makes there.

    :param oid: Its number.
    :param column: The bytea column.
    :param target: The vector column, there already or not.
    :param has_target: Whether it is.
    :param key: Names and types of the columns that tell its rows apart; types with their schema where they need one.
    :param rows: About how many; 0 where PostgreSQL has never counted.
    :param size: Bytes on disk without indexes.
    :param vector_schema: Where the extension lives.
    :param vector_oid: Number of the type `vector`.
    :param vector_array_oid: Number of the type `vector[]`.
    """

    oid: int
    schema: str
    name: str
    column: str
    target: str
    has_target: bool
    key: tuple[tuple[str, str], ...]
    rows: int
    size: int
    vector_schema: str
    vector_oid: int
    vector_array_oid: int

    @property
    def shown(self) -> str:
        """Its name, for people and for `to_regclass`."""
        return Identifier(self.schema, self.name).as_string()

    @property
    def part(self) -> str:
        """What is migrated, for people."""
        return f"{self.schema}.{self.name}.{self.column}"

    def made(self, purpose: str, *, first: str = "") -> str:
        """
        The name of a thing that the migration makes: of table, column and purpose, shortened to what PostgreSQL takes.

        :param first: What it begins with.
        """
        name = f"{first}{self.name}_{self.target}_{purpose}"
        if len(name.encode()) <= LONGEST_NAME:
            return name
        mark = hashlib.sha256(name.encode()).hexdigest()[:8]
        room = LONGEST_NAME - len(f"{first}_{mark}_{purpose}".encode())
        stem = f"{self.name}_{self.target}".encode()[:room].decode(errors="ignore")
        return f"{first}{stem}_{mark}_{purpose}"

    @property
    def trigger_names(self) -> tuple[str, str]:
        """The triggers for INSERT and UPDATE. Triggers fire by name; these see what all others have made of a row."""
        return self.made("insert", first="zzz_synapse_"), self.made("update", first="zzz_synapse_")

    @property
    def constraint_name(self) -> str:
        """The constraint that makes it final."""
        return self.made("complete")

    def compose(self, name: str, **parts: Composable) -> Composed:
        """A statement with this table's names in it; to be run with parameters if it has places for some."""
        text = STATEMENTS[name]
        return SQL(text).format(**{**self.names(Identifier if "%(" not in text else escaped), **parts})

    def beyond(self, key: list[str] | None) -> tuple[Composed | SQL, dict[str, str]]:
        """
        The condition for rows behind a key, with its parameters.

        :param key: The values of the key, as text; `None` for all rows.
        """
        if key is None:
            return SQL("true"), {}
        names = SQL(", ").join(escaped("t", name) for name, _ in self.key)
        kinds = enumerate(_doubled(kind) for _, kind in self.key)
        values = SQL(", ").join(SQL(f"%(beyond{number})s::text::{kind}") for number, kind in kinds)
        parameters = {f"beyond{number}": value for number, value in enumerate(key)}
        return SQL("({}) > ({})").format(names, values), parameters

    def names(self, quote: Callable[..., Identifier]) -> dict[str, Composable]:
        """
        Its names, by the places that statements have for them.

        :param quote: `Identifier`, or `escaped` for a statement that is run with parameters.
        """
        places = [f"k{number}" for number in range(len(self.key))]
        key = list(zip(places, self.key, strict=True))
        insert_trigger, update_trigger = self.trigger_names
        return {
            "table": quote(self.schema, self.name),
            "state": quote(self.schema, STATE),
            "function": quote(self.schema, self.made("unpack")),
            "insert_trigger": quote(insert_trigger),
            "update_trigger": quote(update_trigger),
            "constraint": quote(self.constraint_name),
            "column": quote(self.column),
            "target": quote(self.target),
            "vector_schema": quote(self.vector_schema),
            "name_text": Literal(self.name),
            "column_text": Literal(self.column),
            "target_text": Literal(self.target),
            "keys": SQL(", ").join(quote("t", name) for name, _ in self.key),
            "keys_as_text": SQL(", ").join(SQL("{}::text").format(quote("t", name)) for name, _ in self.key),
            "key_names": SQL(", ").join(map(Identifier, places)),
            "typed_keys": SQL(", ").join(SQL(f"{place}::{_doubled(kind)} AS {place}") for place, (_, kind) in key),
            "key_arrays": SQL(", ").join(SQL(f"%({place})s::text[]") for place in places),
            "same_key": SQL(" AND ").join(
                SQL("{} = {}").format(quote("t", name), quote("given", place)) for place, (name, _) in key
            ),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """Where a table is: its number, its schema and its name."""

    oid: int
    schema: str
    name: str

    @property
    def shown(self) -> str:
        """Its name, for people."""
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, kw_only=True)
class Obstacles:
    """
    What was noticed about a table.

    :param triggers: What an UPDATE of the new column fires.
    :param notices: Sentences that a person should read.
    """

    triggers: list[str]
    notices: list[str]


def find_table(connection: Connection[Any], name: str, *, column: str, target: str | None = None) -> ByteaTable:
    """
    Look a table up and see whether its bytes can become vectors in place.

    :param connection: Of the table's owner, in autocommit mode; its settings are changed, as `session` in bytea.sql says.
    :param name: As SQL writes it, with or without its schema; also without the quotes that SQL would want.
    :param column: The bytea column, exactly.
    :param target: The vector column; by default the bytea column's name and `_vector`.
    :raises SchemaError: If there is no such table or column.
    :raises ExtensionMissingError: If the database has no pgvector.
    :raises InvalidInputError: If the table or the column is not of the kind that was expected.
    :raises GuardError: If the role may not change the table.
    """
    connection.execute("RESET search_path")
    oid = _oid(connection, name)
    connection.execute(STATEMENTS["session"])
    facts = connection.execute(STATEMENTS["table_facts"], {"table": oid}).fetchone() or {}
    shown = f"{facts['schema']}.{facts['name']}"
    _refuse_other_kinds(shown, facts)
    columns = {row["name"]: row for row in connection.execute(STATEMENTS["columns"], {"table": oid})}
    target = target or f"{column}_vector"
    _refuse_other_columns(shown, columns, column=column, target=target)
    keys = connection.execute(STATEMENTS["keys"], {"table": oid}).fetchone()
    if keys is None:
        raise InvalidInputError(
            f"Table {shown} must have a primary key, or a unique index over columns that are NOT NULL, but has none.",
            hint="Add one; without it a row cannot be told from another.",
        )
    extension = connection.execute(STATEMENTS["vector_type"]).fetchone()
    if extension is None:
        raise ExtensionMissingError(
            "The extension vector was expected in this database, but is not installed.",
            hint="Run CREATE EXTENSION vector as a superuser, or as the owner of the database where that is allowed.",
        )
    _refuse_without_rights(shown, facts)
    return ByteaTable(
        oid=oid,
        schema=facts["schema"],
        name=facts["name"],
        column=column,
        target=target,
        has_target=target in columns,
        key=tuple(zip(keys["names"], keys["types"], strict=True)),
        rows=facts["rows"],
        size=facts["size"],
        vector_schema=extension["schema"],
        vector_oid=extension["oid"],
        vector_array_oid=extension["array_oid"],
    )


def escaped(*names: str) -> Identifier:
    """An identifier in a statement with parameters, where psycopg takes a percent sign for a place unless it is doubled."""
    return Identifier(*map(_doubled, names))


def find_relation(connection: Connection[Any], name: str) -> Relation:
    """
    Where a table is.

    :param name: As SQL writes it, with or without its schema; also without the quotes that SQL would want.
    :raises SchemaError: If there is none of that name.
    """
    oid = _oid(connection, name)
    facts = connection.execute(STATEMENTS["table_facts"], {"table": oid}).fetchone() or {}
    return Relation(oid=oid, schema=facts["schema"], name=facts["name"])


def obstacles(connection: Connection[Any], table: ByteaTable, *, own: list[int]) -> Obstacles:
    """
    What else is on the table that a person should know of.

    :param own: Process numbers of our own sessions.
    """
    ours = {"table": table.oid, "ours": list(table.trigger_names)}
    fired = [row["name"] for row in connection.execute(STATEMENTS["triggers"], ours)]
    fired += [f"{row['name']} (a rule)" for row in connection.execute(STATEMENTS["update_rules"], ours)]
    notices = []
    if later := [row["name"] for row in connection.execute(STATEMENTS["later_triggers"], ours)]:
        notices.append(f"Triggers that fire after ours and may change the bytes unseen: {', '.join(later)}.")
    for holder in connection.execute(STATEMENTS["holders"], {"table": table.oid, "ours": own}):
        if holder["seconds"] and holder["seconds"] > 1:
            notices.append(f"{holder_text(holder)} holds a lock on the table; adding the column waits for its end.")
    return Obstacles(triggers=fired, notices=notices)


def holder_text(holder: Mapping[str, Any]) -> str:
    """Who holds a lock, for people."""
    program = f", {holder['program']}" if holder["program"] else ""
    return f"Process {holder['pid']} ({holder['role']}{program}, {holder['state']} for {holder['seconds']:.0f} s)"


def _doubled(text: str) -> str:
    return text.replace("%", "%%")


def _oid(connection: Connection[Any], name: str) -> int:
    schema, dot, rest = name.partition(".")
    for written in (name, Identifier(name).as_string(), Identifier(schema, rest).as_string() if dot else ""):
        try:
            row = connection.execute(STATEMENTS["relation"], {"name": written}).fetchone() if written else None
        except psycopg.errors.Error:
            continue
        if row and row["oid"] is not None:
            return int(row["oid"])
    raise SchemaError(
        f"A table {name} was expected, but the database has none of that name.",
        hint="Write its schema before it, such as app.items; check DATABASE_URL.",
    )


def _refuse_other_kinds(shown: str, facts: Mapping[str, Any]) -> None:
    if facts["kind"] != "r":
        raise InvalidInputError(f"{shown} must be an ordinary table, but is {_KINDS.get(facts['kind'], 'none')}.")
    if facts["is_partition"] or facts["has_children"]:
        what = "a partition" if facts["is_partition"] else "a table from which others inherit"
        raise InvalidInputError(f"{shown} must be a table of its own, but is {what}.")
    if facts["standby"]:
        raise InvalidInputError("The server is a standby, which cannot be written; the primary server was expected.")


def _refuse_other_columns(shown: str, columns: Mapping[str, Any], *, column: str, target: str) -> None:
    found = columns.get(column)
    if found is None:
        raise SchemaError(
            f"A column {column} was expected in table {shown}, but it has {', '.join(columns)}.",
            hint="Write the column's name exactly as it is, with capitals and without quotes.",
        )
    if found["type"] != "bytea":
        raise InvalidInputError(f"Column {column} of {shown} must be of type bytea, but is {found['type']}.")
    if found["generated"]:
        raise InvalidInputError(
            f"Column {column} of {shown} must be an ordinary column, but is generated; triggers do not see its values."
        )
    if len(target.encode()) > LONGEST_NAME:
        raise InvalidInputError(f"The new column's name must have at most {LONGEST_NAME} bytes, but is {target}.")


def _refuse_without_rights(shown: str, facts: Mapping[str, Any]) -> None:
    if not facts["owned"]:
        raise GuardError(
            f"Table {shown} belongs to {facts['owner']}; {facts['role']} may not change it.",
            hint="Set DATABASE_OWNER_URL, or give --database-url, with the owner's connection string.",
        )
    if not facts["may_create"]:
        raise GuardError(
            f"A trigger function must be made in schema {facts['schema']}, but {facts['role']} may create nothing there.",
            hint=f"GRANT CREATE ON SCHEMA {facts['schema']} TO {facts['role']}.",
        )
    if facts["hides_rows"]:
        raise GuardError(
            f"Row-level security is forced on {shown}, also for its owner; rows that {facts['role']} cannot see would be left.",
            hint="Connect as a superuser or as a role with BYPASSRLS.",
        )
