"""What every migration command does with its source: run, show how far it is, print the receipt, end with the right code."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands.database import owner_database
from commands.model_check import strangers
from commands.output import console, note, print_json, progress, say
from database.errors import BELOW_THRESHOLD, PARTLY_DONE, InvalidInputError

if TYPE_CHECKING:
    from config import Settings
    from migration.progress import OnProgress, Progress
    from migration.receipt import Receipt
    from migration.source import Source

Collection = Annotated[
    list[str] | None, typer.Option("--collection", metavar="NAME", help="Only this one; repeatable. By default all.")
]
Table = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="One table for all of them. By default one for each, documents_<collection>."),
]
Model = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The embedding model that made the vectors. By default the active one."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and convert everything, and write nothing.")]
On = Annotated[
    list[str] | None,
    typer.Option("--on", metavar="KIND=stop|keep|reject", help="What to do with a kind of change; repeatable."),
]
AcceptRankChange = Annotated[
    bool, typer.Option("--accept-rank-change", help="Migrate also what cosine ranks differently, and show by how much.")
]
UnpackLlamaIndex = Annotated[
    bool, typer.Option("--unpack-llamaindex", help="Take text and metadata out of LlamaIndex's _node_content.")
]
ReceiptFolder = Annotated[
    Path | None,
    typer.Option("--receipt", metavar="DIR", help="Where receipt and rejects file go. By default receipts/<run>."),
]
Verify = Annotated[bool, typer.Option("--verify", help="Only compare the target with the source; write nothing.")]
Queries = Annotated[int, typer.Option(metavar="N", min=0, max=1000, help="How many searches are compared; 0 for none.")]


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the options of a migration command say."""

    collections: Sequence[str] | None
    table: str | None
    model: str | None
    dry_run: bool
    on: Sequence[str] | None
    accept_rank_change: bool
    receipt: Path | None
    verify: bool
    queries: int
    json_: bool
    unpack_llamaindex: bool = False


def assignments(given: Sequence[str] | None, expected: str) -> dict[str, str]:
    """
    `NAME=VALUE` as a mapping.

    :param expected: What was expected, for the message.
    :raises InvalidInputError: If one has another form.
    """
    found = {}
    for text in given or ():
        name, equals, value = text.rpartition("=")
        if not equals:
            raise InvalidInputError(f"{expected}, but found {text!r}.")
        found[name.strip()] = value.strip()
    return found


def migrate(source: Source, choices: Choices, settings: Settings) -> None:
    """Migrate a source, or check or verify it, and end the program with the code that says how it went."""
    from migration.conversion import checked_policies
    from migration.engine import Migration, Options, UndecidedError

    if choices.dry_run and choices.verify:
        raise InvalidInputError("--dry-run and --verify were given, but only one can be done at a time.")
    given = assignments(choices.on, "--on takes KIND=stop, KIND=keep or KIND=reject")
    if choices.unpack_llamaindex:
        from migration.sources.llamaindex import UnpackedNodes

        source = UnpackedNodes(source)
    owner = owner_database(settings)
    if settings.database_url:
        from database.schema import require_current

        require_current(owner)
    with steps(quiet=choices.json_) as on_progress:
        migration = Migration(
            source,
            owner,
            Options(
                parts=tuple(choices.collections or ()),
                table=choices.table,
                model=choices.model,
                policies=checked_policies(given),
                accept_rank_change=choices.accept_rank_change,
                queries=choices.queries,
            ),
            receipts=choices.receipt,
            on_progress=on_progress,
        )
        if not choices.verify:
            migration.advice = strangers(migration)
        try:
            receipt = (
                migration.dry_run() if choices.dry_run else migration.verify() if choices.verify else migration.run()
            )
        except UndecidedError as exc:
            if exc.receipt.rejects.get("path"):
                exc.hint += f" What they hold is in {migration.folder}/{exc.receipt.rejects['path']}."
            raise
    finish(receipt, migration.folder, json_=choices.json_)


def roll_back(run: str, settings: Settings, *, json_: bool) -> None:
    """Take away what a run made, and say what that was."""
    from database.migration_runs import find_run, roll_back

    owner = owner_database(settings)
    undone = roll_back(owner, find_run(owner, run))
    if json_:
        print_json({"run": run, "tables": undone})
        return
    for table in undone:
        if table["dropped"]:
            say(f"Dropped {table['table']} with {table['deleted']:,} documents.")
        else:
            say(
                f"{table['table']}: {table['deleted']:,} documents deleted, {table['restored']:,} put back as they were."
            )
    say(f"Run {run} is rolled back.")


def finish(receipt: Receipt, folder: Path | None, *, json_: bool) -> None:
    """Write the receipt, print it, and end the program with the code that says how it went."""
    written = None
    if folder is not None:
        from migration.receipt_page import write_receipt

        name = {"verification": "verification", "dry run": "dry-run"}.get(receipt.kind, "receipt")
        _, written = write_receipt(receipt, folder, name=name)
    if json_:
        print_json(receipt.to_dict())
    else:
        _print(receipt, written)
    if receipt.kind == "dry run":
        from database.errors import REFUSED

        if receipt.problems:
            raise typer.Exit(REFUSED)
    elif not receipt.closed:
        raise typer.Exit(BELOW_THRESHOLD)
    if receipt.rejected:
        raise typer.Exit(PARTLY_DONE)


def _print(receipt: Receipt, written: Path | None) -> None:
    from rich.markup import escape
    from rich.table import Table

    from migration.receipt import printable

    say(f"{receipt.source['kind']} {receipt.source['location']} → {receipt.target['database']}")
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    table.add_column("to")
    read_back = receipt.kind != "dry run"
    for name in ("records", "copied", "changed", "rejected", *(("missing", "different", "extra") if read_back else ())):
        table.add_column(name, justify="right")
    for part in receipt.parts:
        findings = (part.missing, part.different, part.extra) if read_back else ()
        counts = (part.records, part.copied, part.changed, part.rejected, *(finding.count for finding in findings))
        table.add_row(escape(printable(part.name)), escape(part.target), *(f"{count:,}" for count in counts))
    console().print(table)
    for part in receipt.parts:
        title = printable(part.name)
        for kind, change in part.changes.items():
            say(f"  {title}: {change.records:,} {kind} ({change.policy})")
        for name, count in part.notes.items():
            say(f"  {title}: {count:,} {printable(name)}")
        for check, facts in part.checks.items():
            say(f"  {title}: {printable(check)}: {facts.get('found', 'passed' if facts['passed'] else 'failed')}")
    for reason in dict.fromkeys(item["reason"] for item in receipt.left_out):
        names = [item["name"] for item in receipt.left_out if item["reason"] == reason]
        say(f"  left out, {reason}: {printable(', '.join(names))}")
    for warning in receipt.warnings:
        say(f"Note: {printable(warning)}")
    for line in _verdict(receipt):
        say(printable(line))
    if written is not None:
        say(f"Receipt: {written}")


def _verdict(receipt: Receipt) -> list[str]:
    if receipt.kind == "dry run":
        if receipt.problems:
            return [*(f"Would stop: {problem}." for problem in receipt.problems), "Nothing was written."]
        return ["Nothing stands in the way. Nothing was written."]
    if receipt.closed:
        return [f"The books are closed: every record is accounted for and was read back. Run {receipt.run['id']}."]
    return ["The books are open:", *(f"  {reason}" for reason in receipt.open())]


@contextmanager
def steps(*, quiet: bool) -> Iterator[OnProgress]:
    """A bar with rows a second and time left; on what is no terminal, a line when a step begins."""
    with progress(quiet=quiet) as bar:
        task = bar.add_task("Starting", total=None, detail="")
        current: list[Any] = ["", 0.0, 0]

        def show(now: Progress) -> None:
            title = f"{now.step} {now.part}".strip()
            if title != current[0]:
                current[:] = [title, time.monotonic(), now.done]
                bar.reset(task, total=now.total, description=title.capitalize(), detail="")
                if not quiet and bar.disable:
                    note(f"{title} …")
            elapsed = time.monotonic() - current[1]
            speed = (now.done - current[2]) / elapsed if elapsed > 0.5 else 0.0
            bar.update(task, completed=now.done, total=now.total, detail=f"{speed:,.0f}/s" if speed else "")

        yield show
