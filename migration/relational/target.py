"""
The schema that tables go to: guarded, created, loaded batch by batch, and taken back.

How far a run is stands in a table of its own in that schema and is written in the transaction of what it speaks of. A run
that is killed leaves whole batches, and the next one goes on behind the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal
from psycopg.types.json import Jsonb

from database.errors import GuardError, InvalidInputError
from database.sql import statements
from migration.relational.plan import LONGEST_NAME, STATE_TABLE, PlannedColumn, TablePlan

if TYPE_CHECKING:
    from psycopg import Connection

SQLS = statements(Path(__file__).with_suffix(".sql"))
RUN = ""
"""The run's own row among those of its tables."""


class TargetSchema:
    """
    A schema of the target.

    :param connection: Of its owner, in autocommit mode, with dictionaries for rows.
    :param name: The schema's.
    :raises InvalidInputError: If PostgreSQL cannot have a schema of that name.
    :raises GuardError: If another run works on it.
    """

    def __init__(self, connection: Connection[dict[str, Any]], name: str) -> None:
        if not name or len(name.encode()) > LONGEST_NAME or name.startswith("pg_") or name == "information_schema":
            raise InvalidInputError(
                f"The name of a schema was expected, of 1 to {LONGEST_NAME} bytes and not PostgreSQL's own, "
                f"but found {name!r}."
            )
        self.connection, self.name = connection, name
        self.execute("session")
        if not self.one("lock")["got"]:
            raise GuardError(
                f"Nobody else was expected to work on schema {name}, but another migration does.",
                hint="Wait until it ends.",
            )

    # Statements

    def execute(self, statement: str | Composed, values: dict[str, Any] | None = None, **parts: Composable) -> Any:
        """Run a statement: by its name in the `.sql` file, or as it is."""
        if isinstance(statement, str):
            known = {"schema": Identifier(self.name), "state": self.path(STATE_TABLE)}
            given = {"schema": self.name, **(values or {})} if "%(" in SQLS[statement] else None
            return self.connection.execute(SQL(SQLS[statement]).format(**known, **parts), given)
        return self.connection.execute(statement, values)

    def one(self, statement: str, values: dict[str, Any] | None = None, **parts: Composable) -> dict[str, Any]:
        """The only row of a statement's result."""
        row = self.execute(statement, values, **parts).fetchone()
        assert row is not None
        return dict(row)

    def path(self, table: str) -> Identifier:
        """A table of the schema, for statements."""
        return Identifier(self.name, table)

    def path_text(self, table: str) -> str:
        """The same, for functions that take it as text."""
        return self.path(table).as_string(self.connection)

    # A run's state

    def state(self) -> dict[str, dict[str, Any]] | None:
        """What a run has noted, by table; `None` if none has begun here."""
        if STATE_TABLE not in self.one("schema")["relations"]:
            return None
        return {row["table_name"]: row for row in self.execute("read_state").fetchall()}

    def begin(self, run: dict[str, Any], plans: Sequence[TablePlan]) -> dict[str, dict[str, Any]]:
        """
        Create schema and tables, or find them as this run's earlier attempt has left them.

        :param run: What tells this run from others.
        :raises GuardError: If there is anything else.
        """
        there = self.require_usable(run)
        state = self.state()
        if state is not None:
            return state
        with self.connection.transaction():
            if not there["found"]:
                self.execute("create_schema")
            self.execute("create_state")
            self._note(RUN, {**run, "made_schema": not there["found"]})
            for plan in plans:
                columns = SQL(", ").join(_definition(column) for column in plan.columns)
                self.execute("create_table", table=self.path(plan.target), columns=columns)
                self._note(plan.target, {})
        return self.state() or {}

    def require_usable(self, run: dict[str, Any]) -> dict[str, Any]:
        """
        Whether the schema is there, and what is in it: nothing, or an earlier attempt of this run.

        :raises GuardError: If there is anything else.
        """
        there = self.one("schema")
        state = self.state()
        if state is None and there["relations"]:
            raise GuardError(
                f"Schema {self.name} was expected to be new or empty, but holds {', '.join(there['relations'][:5])}"
                f"{' …' if len(there['relations']) > 5 else ''}.",
                hint="Choose another with --schema; tables can be moved later, by ALTER TABLE … SET SCHEMA.",
            )
        for name, value in run.items() if state is not None else ():
            if (state or {})[RUN]["notes"].get(name) != value:
                raise GuardError(
                    f"Schema {self.name} was expected to hold this migration, but holds one with another {name}.",
                    hint="Take that one back with --rollback, or choose another schema.",
                )
        return there

    def _note(self, table: str, notes: dict[str, Any]) -> None:
        path = self.path_text(table) if table else None
        self.execute("add_state", {"name": table, "path": path, "notes": Jsonb(notes)})

    def count(self, table: str) -> int:
        """Rows of a table."""
        return int(self.one("count", table=self.path(table))["rows"])

    def end_step(self, table: str, step: str, notes: dict[str, Any]) -> None:
        """Note that a table, or the run, is a step further."""
        self.execute("set_step", {"name": table, "step": step, "notes": Jsonb(notes)})

    # Loading

    def write(self, plan: TablePlan, rows: Iterable[tuple[Any, ...]], position: int) -> None:
        """Write a batch, and where the source stands behind it, in one transaction."""
        columns = SQL(", ").join(Identifier(column.name) for column in plan.columns)
        statement = SQL(SQLS["copy"]).format(table=self.path(plan.target), columns=columns)
        with self.connection.transaction(), self.connection.cursor() as cursor:
            with cursor.copy(statement) as copy:
                for row in rows:
                    copy.write_row(row)
            self.execute("advance", {"name": plan.target, "position": position})

    # Going back

    def roll_back(self) -> dict[str, Any]:
        """
        Drop what a run has made: its tables, and the schema if it made it and nothing else is in it.

        :returns: `{tables, schema}`: the names of the tables, and whether the schema is gone.
        :raises GuardError: If no run is there, a table is not as the run has left it, or something depends on one.
        """
        state = self.state()
        if state is None:
            raise GuardError(f"A migration was expected in schema {self.name}, but there is none to take back.")
        made = [name for name, row in state.items() if name != RUN and self._is_still_there(name, row)]
        try:
            with self.connection.transaction():
                tables = SQL(", ").join(self.path(name) for name in (*made, STATE_TABLE))
                self.execute(SQL("DROP TABLE {} RESTRICT").format(tables))
                gone = bool(state[RUN]["notes"].get("made_schema")) and self.one("schema_is_empty")["empty"]
                if gone:
                    self.execute("drop_schema")
        except psycopg.errors.DependentObjectsStillExist as exc:
            raise GuardError(
                f"Nothing was expected to depend on the tables of schema {self.name}, but something does: "
                f"{(exc.diag.message_detail or str(exc)).splitlines()[0]}.",
                hint="Drop that first, then run this again.",
            ) from exc
        return {"tables": sorted(made), "schema": gone}

    def _is_still_there(self, table: str, noted: dict[str, Any]) -> bool:
        found = self.one("relation_oid", {"path": self.path_text(table)})["oid"]
        if found is None:
            return False
        if found != noted["oid"]:
            raise GuardError(
                f"Table {table} of schema {self.name} was expected to be the migration's, but was made anew since.",
                hint="Move it out of the way, by ALTER TABLE … RENAME.",
            )
        rows, expected = self.count(table), noted["notes"].get("rows")
        if expected not in (None, rows):
            raise GuardError(
                f"Table {table} of schema {self.name} was expected to have the {expected:,} rows of the migration, "
                f"but has {rows:,}.",
                hint="Somebody has written to it since; if those rows may go, too, drop it by hand first.",
            )
        return True


def _definition(column: PlannedColumn) -> Composed:
    parts: list[Composable] = [Identifier(column.name), SQL(column.encoding.sql_type)]
    if column.not_null:
        parts.append(SQL("NOT NULL"))
    if column.numbered:
        parts.append(SQL("GENERATED BY DEFAULT AS IDENTITY"))
    elif column.moment is not None:
        parts.append(SQL("DEFAULT ({})").format(SQL(column.moment)))
    elif column.default is not None:
        parts.append(SQL("DEFAULT {}").format(Literal(column.default)))
    return SQL(" ").join(parts)
