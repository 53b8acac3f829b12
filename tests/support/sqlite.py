"""Migrating a SQLite file in tests: into a schema of its own, and reading both sides back."""

from __future__ import annotations

import json
import os
import sys
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psycopg.rows import tuple_row
from psycopg.sql import SQL, Identifier

from database.connection import Database
from migration.progress import OnProgress, silent
from migration.receipt import Receipt
from migration.relational.conversion import chosen_policies
from migration.relational.mover import TablesMigration
from migration.relational.target import TargetSchema
from migration.sources.sqlite_tables import SqliteTables

KEEP = dict.fromkeys(("ambiguous", "invalid_utf8", "nul", "orphan", "widened"), "keep")


@dataclass
class Move:
    """
    A migration of a file into a schema.

    :param folder: For the rejects file.
    """

    owner: Database
    file: Path
    folder: Path
    schema: str = "moved"
    policies: dict[str, str] = field(default_factory=dict)
    tables: tuple[str, ...] = ()
    report: OnProgress = silent

    def run(self, what: str = "run") -> Receipt:
        """`run`, `dry_run` or `verify`."""
        with closing(SqliteTables(self.file)) as source, self.owner.unpooled() as connection:
            migration = TablesMigration(
                source,
                TargetSchema(connection, self.schema),
                chosen_policies(self.policies),
                tables=self.tables,
                receipts=self.folder,
                on_progress=self.report,
            )
            receipt: Receipt = getattr(migration, what)()
            return receipt

    def roll_back(self) -> dict[str, Any]:
        with self.owner.unpooled() as connection:
            return TargetSchema(connection, self.schema).roll_back()

    def rows(self, table: str, columns: str = "*") -> list[tuple[Any, ...]]:
        """What stands in a table, as text where PostgreSQL's JSON would be parsed."""
        with self.owner.unpooled() as connection, connection.cursor(row_factory=tuple_row) as cursor:
            connection.execute("SET TIME ZONE 'UTC'")
            path = Identifier(self.schema, table)
            return cursor.execute(SQL("SELECT {} FROM {} ORDER BY 1").format(SQL(columns), path)).fetchall()  # type: ignore[arg-type]

    def execute(self, statement: str) -> list[dict[str, Any]]:
        """Run a statement; `S` stands for the schema."""
        with self.owner.unpooled() as connection:
            cursor = connection.execute(statement.replace("S.", f'"{self.schema}".'))  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def rejects(self) -> list[dict[str, Any]]:
        path = self.folder / "rejects.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]


def lasting(receipt: Receipt) -> dict[str, Any]:
    """A receipt without what differs between runs."""
    return {name: value for name, value in receipt.to_dict().items() if name != "run"}


def main(conninfo: str, file: str, folder: str, schema: str, killed_at: str) -> None:
    """Migrate, and die without a word when so many batches have been reported."""
    reported = 0

    def report(_: object) -> None:
        nonlocal reported
        reported += 1
        if reported == int(killed_at):
            os.kill(os.getpid(), 9)

    move = Move(Database(conninfo), Path(file), Path(folder), schema=schema, report=report)
    print(json.dumps(lasting(move.run())))
    sys.stdout.flush()
