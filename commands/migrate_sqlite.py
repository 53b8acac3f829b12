"""`migrate sqlite`: the tables of a SQLite database into a schema of PostgreSQL, with a receipt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands import migration_run as shared
from commands.database import owner_database
from commands.output import JsonFlag, errors_reported, print_json, say
from database.errors import InvalidInputError

if TYPE_CHECKING:
    from config import Settings
    from migration.relational.target import TargetSchema


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the options say."""

    file: Path
    schema: str
    tables: list[str]
    on: list[str]
    dry_run: bool
    verify: bool
    receipt: Path | None
    json_: bool


def sqlite(
    file: Annotated[
        Path | None, typer.Argument(help="The SQLite database; it is only read.", show_default=False)
    ] = None,
    schema: Annotated[
        str, typer.Option(metavar="NAME", help="The schema that the tables go to; new or empty.", show_default=False)
    ] = "",
    table: Annotated[
        list[str] | None, typer.Option("--table", metavar="NAME", help="Only this one; repeatable. By default all.")
    ] = None,
    on: shared.On = None,
    dry_run: shared.DryRun = False,
    verify: shared.Verify = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Drop the tables that the migration made.")] = False,
    receipt: shared.ReceiptFolder = None,
    json_: JsonFlag = False,
) -> None:
    """Move every table of a SQLite database into a schema, value by value. The source is only read."""
    with errors_reported(json_):
        from config import Settings

        if dry_run + verify + rollback > 1:
            raise InvalidInputError("One of --dry-run, --verify and --rollback was expected, but more are given.")
        if not schema:
            raise InvalidInputError("A schema for the tables was expected.", hint="Name it with --schema.")
        if rollback:
            _roll_back(Settings.from_env(), schema, json_=json_)
            return
        if file is None:
            raise InvalidInputError("The path of a SQLite database was expected.")
        choices = Choices(
            file=file, schema=schema, tables=table or [], on=on or [], dry_run=dry_run, verify=verify, receipt=receipt,
            json_=json_,
        )  # fmt: skip
        _migrate(choices, Settings.from_env())


def _migrate(choices: Choices, settings: Settings) -> None:
    from migration.relational.conversion import chosen_policies
    from migration.relational.mover import TablesMigration, UndecidedError
    from migration.sources.sqlite_tables import SqliteTables

    given = shared.assignments(choices.on, "--on takes KIND=stop, KIND=keep or KIND=reject")
    policies = chosen_policies(given)
    with (
        closing(SqliteTables(choices.file)) as source,
        _target(settings, choices.schema) as target,
        shared.steps(quiet=choices.json_) as on_progress,
    ):
        migration = TablesMigration(
            source, target, policies, tables=choices.tables, receipts=choices.receipt, on_progress=on_progress
        )
        try:
            receipt = (
                migration.dry_run() if choices.dry_run else migration.verify() if choices.verify else migration.run()
            )
        except UndecidedError as exc:
            exc.hint += f" What they hold is in {migration.folder}/{exc.receipt.rejects['path']}."
            raise
    shared.finish(receipt, migration.folder, json_=choices.json_)


def _roll_back(settings: Settings, schema: str, *, json_: bool) -> None:
    with _target(settings, schema) as target:
        done = target.roll_back()
    if json_:
        print_json(done)
        return
    say(f"Dropped {', '.join(done['tables'])}. Schema {schema} {'is gone, too' if done['schema'] else 'stays'}.")


@contextmanager
def _target(settings: Settings, schema: str) -> Iterator[TargetSchema]:
    from migration.relational.target import TargetSchema

    with owner_database(settings).unpooled() as connection:
        yield TargetSchema(connection, schema)
