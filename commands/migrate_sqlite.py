"""`migrate sqlite`: the tables of a SQLite database into a schema of PostgreSQL, with a receipt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.database import owner_database
from commands.output import JsonFlag, errors_reported, print_json, progress, say
from database.errors import BELOW_THRESHOLD, DONE, PARTLY_DONE, REFUSED, InvalidInputError

if TYPE_CHECKING:
    from config import Settings
    from migration.progress import OnProgress
    from migration.receipt import PartReceipt, Receipt
    from migration.relational.target import TargetSchema

RECEIPT = "receipt.json"


def sqlite(
    file: Annotated[
        Path | None, typer.Argument(help="The SQLite database; it is only read.", show_default=False)
    ] = None,
    schema: Annotated[str, typer.Option("--schema", help="The schema that the tables go to; new or empty.")] = "",
    table: Annotated[list[str] | None, typer.Option("--table", help="Only this table; may be repeated.")] = None,
    on: Annotated[
        list[str] | None,
        typer.Option("--on", metavar="KIND=POLICY", help="What to do with a kind of change: stop, keep or reject."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and convert everything, write nothing.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Only compare what is there with the source.")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Drop the tables that the migration made.")] = False,
    receipt: Annotated[
        Path | None, typer.Option("--receipt", help="Folder for the receipt and the rejects file.")
    ] = None,
    json_: JsonFlag = False,
) -> None:
    """Move every table of a SQLite database into a PostgreSQL schema, value by value, with a receipt."""
    with errors_reported(json_):
        from config import Settings

        if dry_run + verify + rollback > 1:
            raise InvalidInputError("One of --dry-run, --verify and --rollback was expected, but more are given.")
        if not schema:
            raise InvalidInputError("A schema for the tables was expected.", hint="Name one with --schema.")
        settings = Settings.from_env()
        if rollback:
            _roll_back(settings, schema, json_=json_)
            return
        if file is None:
            raise InvalidInputError("The path of a SQLite database was expected.")
        folder = receipt or settings.home / "migrations" / f"sqlite-{schema}"
        what = "dry run" if dry_run else "verification" if verify else "migration"
        found = _migrate(settings, file, schema, table or [], on or [], folder, what=what, quiet=json_)
        _write(found, folder, name=RECEIPT if what == "migration" else f"{what.replace(' ', '-')}.json")
        if json_:
            print_json(found.to_dict())
        else:
            _tell(found, folder)
        raise typer.Exit(_exit_code(found))


def _migrate(
    settings: Settings,
    file: Path,
    schema: str,
    tables: list[str],
    choices: list[str],
    folder: Path,
    *,
    what: str,
    quiet: bool,
) -> Receipt:
    from contextlib import closing

    from migration.relational.conversion import chosen_policies
    from migration.relational.mover import TablesMigration, UndecidedError
    from migration.sources.sqlite_tables import SqliteTables

    policies = chosen_policies(_choices(choices))
    with closing(SqliteTables(file)) as source, _target(settings, schema) as target, _shown(quiet) as report:
        migration = TablesMigration(source, target, policies, tables=tables, folder=folder, on_progress=report)
        if what == "dry run":
            return migration.dry_run()
        if what == "verification":
            return migration.verify()
        try:
            return migration.run()
        except UndecidedError as exc:
            _write(exc.receipt, folder, name=RECEIPT)
            raise


def _choices(given: list[str]) -> dict[str, str]:
    choices = {}
    for choice in given:
        kind, is_given, policy = choice.partition("=")
        if not is_given:
            raise InvalidInputError(f"--on KIND=stop, KIND=keep or KIND=reject was expected, but found {choice!r}.")
        choices[kind] = policy
    return choices


def _roll_back(settings: Settings, schema: str, *, json_: bool) -> None:
    with _target(settings, schema) as target:
        done = target.roll_back()
    if json_:
        print_json({"rolled_back": schema, **done})
        return
    rest = f" and schema {schema}" if done["schema"] else f"; schema {schema} stays"
    say(f"Dropped {len(done['tables'])} tables{rest}.")


@contextmanager
def _target(settings: Settings, schema: str) -> Iterator[TargetSchema]:
    from migration.relational.target import TargetSchema

    with owner_database(settings).unpooled() as connection:
        yield TargetSchema(connection, schema)


@contextmanager
def _shown(quiet: bool) -> Iterator[OnProgress]:
    from migration.progress import Progress

    with progress(quiet=quiet) as bar:
        tasks: dict[tuple[str, str], object] = {}

        def report(at: Progress) -> None:
            key = (at.step, at.part)
            if key not in tasks:
                tasks[key] = bar.add_task(f"{at.step} {at.part}".strip(), total=at.total, detail="")
            bar.update(tasks[key], completed=at.done, total=at.total)  # type: ignore[arg-type]

        yield report


def _write(receipt: Receipt, folder: Path, *, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(receipt.to_dict(), indent=2, ensure_ascii=True)
    (folder / name).write_text(text + "\n", encoding="utf-8")


def _exit_code(receipt: Receipt) -> int:
    if any(change.policy == "stop" for part in receipt.parts for change in part.changes.values()):
        return REFUSED
    if not receipt.closed:
        return BELOW_THRESHOLD
    return PARTLY_DONE if receipt.rejected else DONE


def _tell(receipt: Receipt, folder: Path) -> None:
    """The summary: a line for each table, then what a person should know."""
    for part in receipt.parts:
        say(_line(part))
    for item in receipt.left_out:
        say(f"left out  {item['name']}: {item['reason']}")
    for warning in receipt.warnings:
        say(f"note      {warning}")
    for reason in receipt.open():
        say(f"open      {reason}")
    say(f"{_verdict(receipt)} The receipt is in {folder}.")


def _line(part: PartReceipt) -> str:
    changes = ", ".join(f"{kind} {change.records:,}" for kind, change in sorted(part.changes.items()))
    return (
        f"{part.name:<24} {part.records:>10,} rows: {part.copied:,} copied, {part.changed:,} changed, "
        f"{part.rejected:,} rejected{f' ({changes})' if changes else ''}"
    )


def _verdict(receipt: Receipt) -> str:
    if receipt.kind == "dry run":
        return "Nothing was written: this was a dry run."
    if receipt.closed:
        return f"The books are closed: {sum(part.records for part in receipt.parts):,} rows are accounted for."
    return "The books are open."
