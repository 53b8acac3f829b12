"""`migrate bytea`: float32 packed in a bytea column becomes a pgvector column beside it, in place."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands.database import owner_database
from commands.output import JsonFlag, errors_reported, note, print_json, progress, say
from database.errors import BELOW_THRESHOLD, DONE, PARTLY_DONE, REFUSED, ConfigurationError

if TYPE_CHECKING:
    from database.connection import Database
    from migration.bytea_index import Index
    from migration.bytea_options import Options, Outcome
    from migration.progress import Progress
    from migration.receipt import PartReceipt

SHOWN = 3
"""How many ids of a finding are printed; the receipt has more."""


def bytea(
    table: Annotated[str, typer.Argument(help="The table, with its schema where that is not on the search path.")],
    column: Annotated[str, typer.Argument(help="The bytea column, exactly as it is called.")],
    into: Annotated[str | None, typer.Option(help="The new column instead of COLUMN_vector.")] = None,
    database_url: Annotated[
        str | None, typer.Option(help="The database, instead of that of DATABASE_OWNER_URL or DATABASE_URL.")
    ] = None,
    dimension: Annotated[int | None, typer.Option(help="Numbers per vector, instead of what most rows have.")] = None,
    big_endian: Annotated[
        bool | None, typer.Option("--big-endian/--little-endian", help="Byte order, where it is not little-endian.")
    ] = None,
    on: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND=POLICY", help="What to do about rows that do not fit: stop, keep or reject."),
    ] = None,
    batch: Annotated[int, typer.Option(help="Rows that are read, and at most written, at once.")] = 1000,
    pause: Annotated[float, typer.Option(help="Seconds of rest after each batch.")] = 0.0,
    triggers: Annotated[
        bool | None,
        typer.Option("--fire-triggers/--skip-triggers", help="Whether filling fires the table's own triggers."),
    ] = None,
    index: Annotated[str, typer.Option(help="hnsw, ivfflat or none.")] = "hnsw",
    index_name: Annotated[str | None, typer.Option(help="Its name, instead of one made of table and column.")] = None,
    distance: Annotated[str, typer.Option(help="What is searched by: cosine, l2 or ip.")] = "cosine",
    halfvec: Annotated[bool, typer.Option("--halfvec", help="Index 16 bits of each number; up to 4,000.")] = False,
    m: Annotated[int, typer.Option(help="HNSW: connections per element.")] = 16,
    ef_construction: Annotated[int, typer.Option(help="HNSW: candidates while it is built.")] = 64,
    lists: Annotated[int | None, typer.Option(help="IVFFlat: clusters, instead of one per 1,000 rows.")] = None,
    memory: Annotated[int | None, typer.Option(help="Megabytes for the build of the index.")] = None,
    queries: Annotated[int, typer.Option(help="Searches that are compared with searches in memory.")] = 50,
    effort: Annotated[int | None, typer.Option(help="Their hnsw.ef_search, instead of 200, or ivfflat.probes.")] = None,
    min_overlap: Annotated[float, typer.Option(help="What they must find of the nearest ten, 0 to 1.")] = 0.9,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check every row and change nothing.")] = False,
    finish: Annotated[
        bool, typer.Option("--finish", help="Make it final if all checks pass: rows with bytes must have a vector.")
    ] = False,
    constraint: Annotated[
        bool, typer.Option("--constraint/--no-constraint", help="Whether --finish makes PostgreSQL enforce that.")
    ] = True,
    keep_trigger: Annotated[
        bool, typer.Option("--keep-trigger/--drop-trigger", help="Whether --finish leaves the trigger there.")
    ] = True,
    revert: Annotated[bool, typer.Option("--revert", help="Take away all that was made; the bytes stay.")] = False,
    receipt: Annotated[Path | None, typer.Option(help="Folder for the receipt and the rejects file.")] = None,
    json_: JsonFlag = False,
) -> None:
    """Turn float32 packed in a bytea column into a pgvector column beside it, while the table is read and written."""
    with errors_reported(json_):
        from migration.bytea import inspect, migrate
        from migration.bytea_options import Options
        from migration.receipt_page import write_receipt

        options = Options(
            table=table,
            column=column,
            into=into,
            dimension=dimension,
            big_endian=big_endian,
            policies=_policies(on or []),
            batch=batch,
            pause=pause,
            triggers=None if triggers is None else "fire" if triggers else "skip",
            index=_index(
                index, index_name, distance, halfvec=halfvec, m=m, ef_construction=ef_construction, lists=lists
            ),
            memory=None if memory is None else memory * 2**20,
            queries=queries,
            effort=effort,
            least_overlap=min_overlap,
            finish=finish,
            constraint=constraint,
            keep_trigger=keep_trigger,
        )
        owner = _database(database_url)
        if revert:
            _revert(owner, options, json_=json_)
            return
        if receipt is not None:
            receipt.mkdir(parents=True, exist_ok=True)  # the rejects file comes first
        with _shown_progress(quiet=json_) as on_progress:
            outcome = (inspect if dry_run else migrate)(owner, options, folder=receipt, on_progress=on_progress)
        if receipt is not None:
            write_receipt(outcome.receipt, receipt)
        if json_:
            print_json(_as_json(outcome))
        else:
            _print(outcome, options, dry_run=dry_run)
        if code := exit_code(outcome):
            raise typer.Exit(code)


def exit_code(outcome: Outcome) -> int:
    """What the outcome means for a program that called this one."""
    if outcome.refusals:
        return REFUSED
    if not outcome.receipt.closed:
        return BELOW_THRESHOLD
    return PARTLY_DONE if outcome.receipt.rejected else DONE


def _database(url: str | None) -> Database:
    from config import Settings
    from database.connection import database_for

    return database_for(url) if url else owner_database(Settings.from_env())


def _policies(given: list[str]) -> dict[str, str]:
    policies = {}
    for text in given:
        kind, sign, policy = text.partition("=")
        if not sign:
            raise ConfigurationError(f"--on must be KIND=POLICY, such as dimension=reject, but is {text!r}.")
        policies[kind] = policy
    return policies


def _index(method: str, name: str | None, distance: str, **sizes: Any) -> Index | None:
    from migration.bytea_index import OPERATORS, Index

    if method == "none":
        return None
    if method not in ("hnsw", "ivfflat"):
        raise ConfigurationError(f"--index must be hnsw, ivfflat or none, but is {method!r}.")
    if distance not in OPERATORS:
        raise ConfigurationError(f"--distance must be one of {', '.join(OPERATORS)}, but is {distance!r}.")
    return Index(method=method, name=name, distance=distance, **sizes)  # type: ignore[arg-type]


def _revert(owner: Database, options: Options, *, json_: bool) -> None:
    from migration.bytea import revert

    removed = revert(owner, options, on_wait=note)
    if json_:
        print_json({"removed": removed})
        return
    for thing in removed:
        say(f"Removed {thing}.")
    say(f"Column {options.column} is as it was." if removed else "There was nothing to take away.")


@contextmanager
def _shown_progress(*, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """A bar per step, with rows per second."""
    with progress(quiet=quiet) as bar:
        task = bar.add_task("Looking at the table", total=None, detail="")
        step, began, first = "", 0.0, 0

        def show(now: Progress) -> None:
            nonlocal step, began, first
            if now.step != step:
                step, began, first = now.step, time.monotonic(), now.done
                bar.reset(task)
            seconds = time.monotonic() - began
            speed = f"{(now.done - first) / seconds:,.0f}/s" if seconds > 0.5 and now.done > first else ""
            bar.update(task, description=now.step.capitalize(), completed=now.done, total=now.total, detail=speed)

        yield show


def _as_json(outcome: Outcome) -> dict[str, Any]:
    return {
        **outcome.receipt.to_dict(),
        "filled": outcome.filled,
        "slowest_ms": outcome.slowest_ms,
        "finished": outcome.finished,
    }


def _print(outcome: Outcome, options: Options, *, dry_run: bool) -> None:
    part = outcome.receipt.parts[0]
    facts = part.facts
    say(f"{part.name} -> {part.target}")
    _say("rows", f"{facts['rows']:,}, of which {facts['with_bytes']:,} have bytes")
    _say("vectors", f"{facts['dimension']:,} dimensions, {facts['byte_order']}")
    _say("key", ", ".join(facts["key"]))
    for kind, change in part.changes.items():
        _say(kind, f"{change.records:,} rows ({change.policy})")
    if not dry_run and outcome.receipt.kind == "migration":
        _print_checks(outcome, part)
    for notice in outcome.receipt.warnings:
        say(f"Notice: {notice}")
    for refusal in outcome.refusals:
        say(f"Refused: {refusal}")
    say(_ending(outcome, options, dry_run=dry_run))


def _print_checks(outcome: Outcome, part: PartReceipt) -> None:
    _say("filled", f"{outcome.filled:,} rows by this run")
    _say("equal", f"{part.copied:,} vectors, bit for bit")
    for name, finding in (("missing", part.missing), ("different", part.different)):
        if finding.count:
            _say(name, f"{finding.count:,} rows, such as {'; '.join(map(str, finding.examples[:SHOWN]))}")
    for name, count in part.notes.items():
        _say(name.replace("_", " "), f"{count:,}")
    for name, check in part.checks.items():
        _say(name, f"{'passed' if check['passed'] else 'FAILED'}: {check['found']}")


def _say(name: str, text: str) -> None:
    say(f"  {name:<20} {text}")


def _ending(outcome: Outcome, options: Options, *, dry_run: bool) -> str:
    if outcome.refusals:
        nothing = dry_run or outcome.receipt.kind == "dry run"
        return "Nothing was changed." if nothing else "It is not final."
    if dry_run:
        return "All of it can be done. Nothing was changed."
    if not outcome.receipt.closed:
        return "The books are open: " + "; ".join(outcome.receipt.open()) + "."
    if outcome.finished:
        return "The books are closed, and it is final. The bytes are still there; docs/migrating-bytea.md says how to drop them."
    return "The books are closed. Everything is ready for --finish."
