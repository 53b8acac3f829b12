"""
From float32 packed in a bytea column to a pgvector column beside it, in place, while the application goes on writing.

Expand, fill, check, finish: the column and a trigger that fills it for whatever is written from then on; the rows that were
there before; the index; every row read back, and searches compared; then, when asked to, the constraint that makes it final.
Each step looks at what is there and does what is missing, so that a run may end anywhere and the next one goes on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from database.errors import GuardError, InvalidInputError
from migration import bytea_changes, bytea_index
from migration.bytea_backfill import Backfill
from migration.bytea_books import Books, disk_notice
from migration.bytea_canary import Canary, Searches, choose_queries
from migration.bytea_changes import OnWait, State
from migration.bytea_checks import Verified, found_dimension, sample, take_inventory, verify
from migration.bytea_index import Index
from migration.bytea_options import MOST_DIMENSIONS, Options, Outcome
from migration.bytea_table import STATEMENTS, find_table, obstacles
from migration.bytea_values import Packing, suspicions
from migration.progress import OnProgress, Progress, silent
from migration.rejects import RejectsFile

if TYPE_CHECKING:
    from psycopg import Connection

    from database.connection import Database

REJECTS = "rejects.jsonl"
UNINDEXED_QUERIES = 5
"""Searches that are compared where no index is built, at most: each goes through the whole table."""


def inspect(
    owner: Database, options: Options, *, folder: Path | None = None, on_progress: OnProgress = silent
) -> Outcome:
    """
    Make every check and write nothing to the database.

    :param folder: Where the rejects file goes; `None` writes none.
    :returns: With the receipt of a dry run; its refusals are what a migration would be refused for.
    """
    with owner.unpooled() as connection, _rejects(folder) as rejects:
        return _Run(owner, connection, options, on_progress=on_progress).inspected(rejects)


def migrate(
    owner: Database, options: Options, *, folder: Path | None = None, on_progress: OnProgress = silent
) -> Outcome:
    """
    Do whatever is still to be done.

    :param owner: The database, as the owner of the table, on a direct connection: not through a transaction pooler.
    :param folder: Where the rejects file goes; `None` writes none.
    :raises GuardError: If another run is at work, a lock never comes free, or the new column's name is taken.
    :raises InvalidInputError: If table or column are not of the kind that was expected.
    """
    with owner.unpooled() as connection, owner.unpooled() as second:
        table = find_table(connection, options.table, column=options.column, target=options.into)
        bytea_changes.hold_run(connection, table)
        run = _Run(owner, connection, options, on_progress=on_progress)
        if run.state is None:
            with _rejects(folder) as rejects:
                outcome = run.inspected(rejects)
            return outcome if outcome.refusals else run.carried_out(second, outcome, folder)
        if refusals := run.trigger_refusals():
            raise GuardError(refusals[0])
        return run.carried_out(second, None, folder)


def revert(owner: Database, options: Options, *, on_wait: OnWait) -> list[str]:
    """
    Take away what was made for a column: index, trigger, function, constraint, vector column, state; never the bytes.

    :returns: What was removed; nothing if nothing of ours was there.
    :raises GuardError: If another run is at work, or something else uses the column.
    """
    with owner.unpooled() as connection:
        table = find_table(connection, options.table, column=options.column, target=options.into)
        bytea_changes.hold_run(connection, table)
        own = [connection.info.backend_pid]
        return bytea_changes.revert(connection, table, on_wait=on_wait, own=own)


class _Run:
    """One run over one column."""

    def __init__(
        self, owner: Database, connection: Connection[Any], options: Options, *, on_progress: OnProgress
    ) -> None:
        self.connection, self.options, self.on_progress = connection, options, on_progress
        self.table = find_table(connection, options.table, column=options.column, target=options.into)
        self.own = [connection.info.backend_pid]
        self.state = self._known_state()
        self.found = obstacles(connection, self.table, own=self.own)
        self.doubts: list[str] = []
        self.packing = self._packing()
        if options.index is not None:
            options.index.check(self.packing.dimension)
        self.books = Books(
            database=owner.name,
            server_version=connection.info.server_version,
            table=self.table,
            packing=self.packing,
            options=options,
            started=time.time(),
            resumed=self.state is not None,
        )

    def inspected(self, rejects: RejectsFile | None) -> Outcome:
        """Look at every row's bytes."""
        started = time.monotonic()
        found = take_inventory(
            self.connection,
            self.table,
            self.packing,
            on_unfit=self.books.listing(rejects),
            on_progress=self.on_progress,
        )
        receipt = self.books.dry(found, rejects)
        disk = disk_notice(self.connection, receipt.parts[0].facts["needed_bytes"])
        receipt.problems = [*self.doubts, *self.books.stopped(found, verb="do not fit"), *self.trigger_refusals()]
        receipt.warnings = [*self.found.notices, disk]
        receipt.run["seconds"] = {"checking": round(time.monotonic() - started, 3)}
        return Outcome(receipt=receipt)

    def trigger_refusals(self) -> list[str]:
        """Why the backfill cannot begin as long as nobody has said what is to become of the table's triggers."""
        if not self.found.triggers or self.options.triggers is not None:
            return []
        names = ", ".join(self.found.triggers)
        return [
            f"Filling the column would fire the table's own triggers for every row: {names}. "
            "Give --fire-triggers if that is right, or --skip-triggers, which needs the right to set session_replication_role."
        ]

    def carried_out(self, second: Connection[Any], before: Outcome | None, folder: Path | None) -> Outcome:
        """
        Make, fill, index, verify and, if asked to, finish.

        :param before: What the checks of this run have found; `None` where an earlier run has made them.
        """
        seconds = dict(before.receipt.run["seconds"]) if before else {}
        rows, with_bytes = self._counted()
        self.table = replace(self.table, rows=rows)
        second.execute(STATEMENTS["session"])
        self.own.append(second.info.backend_pid)
        with _timed(seconds, "making the column"):
            self._begin()
        with _timed(seconds, "filling"):
            backfill = self._filled(second, with_bytes)
        if self.options.index is not None:
            with _timed(seconds, "indexing"):
                self._indexed(second, self.options.index, rows)
        with _timed(seconds, "verifying"), _rejects(folder) as rejects:
            outcome, found = self._verified(rejects)
        outcome.filled, outcome.slowest_ms = backfill.filled, round(backfill.slowest * 1000, 1)
        outcome.receipt.run["seconds"] = seconds
        outcome.receipt.warnings = self.found.notices
        self._finish(outcome, found)
        return outcome

    def _begin(self) -> None:
        bytea_changes.begin(
            self.connection,
            self.table,
            self.packing,
            keep_zero=self.options.keep_zero,
            trigger=not self._trigger_dropped,
            on_wait=self._waiting,
            own=self.own,
        )
        self.table = replace(self.table, has_target=True)

    @property
    def _trigger_dropped(self) -> bool:
        """Whether an earlier run has made it final without the trigger."""
        return self.state is not None and self.state.finished and not self.state.trigger_wanted

    def _filled(self, writer: Connection[Any], total: int) -> Backfill:
        try:
            backfill = Backfill(
                self.connection,
                writer,
                self.table,
                self.packing,
                keep_zero=self.options.keep_zero,
                batch=self.options.batch,
                pause=self.options.pause,
                skip_triggers=self.options.triggers == "skip",
                on_progress=self.on_progress,
            )
        except psycopg.errors.InsufficientPrivilege as exc:
            raise GuardError(
                "The table's triggers were to be skipped, but this role may not set session_replication_role.",
                hint="Connect as a superuser, or fire them with --fire-triggers.",
            ) from exc
        backfill.run(self.state.position if self.state else None, total=total)
        return backfill

    def _indexed(self, watcher: Connection[Any], index: Index, rows: int) -> None:
        bytea_index.build(
            self.connection,
            watcher,
            self.table,
            index,
            dimension=self.packing.dimension,
            rows=rows,
            known=self.state.index_definition if self.state else None,
            memory=self.options.memory,
            on_progress=self.on_progress,
        )

    def _verified(self, rejects: RejectsFile | None) -> tuple[Outcome, Verified]:
        index = self.options.index
        distance = index.distance if index else "cosine"
        count = self.options.queries if index else min(self.options.queries, UNINDEXED_QUERIES)
        canary = choose_queries(self.connection, self.table, self.packing, distance, count=count)
        found = verify(
            self.connection,
            self.table,
            self.packing,
            keep_zero=self.options.keep_zero,
            on_unfit=self.books.listing(rejects),
            on_vectors=canary.observe,
            on_progress=self.on_progress,
        )
        valid = index is not None and bytea_index.index_is_valid(self.connection, self.table, index)
        receipt = self.books.closing(found, rejects, index_valid=valid, searches=self._searched(canary))
        receipt.problems = self.books.stopped(found, verb="were written meanwhile and do not fit")
        return Outcome(receipt=receipt), found

    def _searched(self, canary: Canary) -> Searches:
        self.on_progress(Progress(step="searching", part=self.table.part, total=len(canary.keys)))
        index = self.options.index
        name, value = (index or Index()).effort(self.table.rows)
        setting = name, self.options.effort or value
        return canary.compare(self.connection, self.table, self.packing, index, setting=setting)

    def _finish(self, outcome: Outcome, found: Verified) -> None:
        options = self.options
        outcome.finished = bool(self.state and self.state.finished)
        if not options.finish or not outcome.receipt.closed:
            return
        if options.constraint and found.unfilled:
            outcome.receipt.problems.append(
                f"{found.unfilled:,} rows have bytes and no vector, so that PostgreSQL cannot be told to refuse such rows. "
                "Correct or delete them, or finish with --no-constraint."
            )
            return
        bytea_changes.finish(
            self.connection,
            self.table,
            constraint=options.constraint,
            keep_trigger=options.keep_trigger and not self._trigger_dropped,
            on_wait=self._waiting,
            own=self.own,
        )
        outcome.finished = True

    def _known_state(self) -> State | None:
        """
        What a run before this one has left.

        :raises GuardError: If the new column is not ours, or was begun otherwise.
        """
        table, options = self.table, self.options
        if not table.has_target:
            return None
        state = bytea_changes.read_state(self.connection, table)
        if state is None:
            raise GuardError(
                f"Column {table.target} was to be made in {table.shown}, but is there already and not of this program.",
                hint="Give another name with --into.",
            )
        begun = state.packing
        if state.bytea_column != table.column or (
            options.dimension not in (None, begun.dimension) or options.big_endian not in (None, begun.big_endian)
        ):
            order = "big" if begun.big_endian else "little"
            raise GuardError(
                f"Column {table.target} was begun from {state.bytea_column} with {begun.dimension} dimensions, {order}-endian, "
                "and something else is asked for now.",
                hint="Ask for the same, or take it back with --revert and begin again.",
            )
        return state

    def _packing(self) -> Packing:
        if self.state is not None:
            return self.state.packing
        values = sample(self.connection, self.table)
        dimension = self.options.dimension or found_dimension(values, self.table)
        if dimension > MOST_DIMENSIONS:
            raise InvalidInputError(
                f"A vector has at most {MOST_DIMENSIONS:,} dimensions, but the bytes hold {dimension:,} numbers."
            )
        packing = Packing(dimension, big_endian=bool(self.options.big_endian))
        if self.options.big_endian is None:
            self.doubts = [
                f"The bytes in {self.table.part} were expected to be little-endian float32, but {doubt}. Give --big-endian or, "
                "if they are what was expected after all, --little-endian."
                for doubt in suspicions([value for value in values if len(value) == packing.size], packing)
            ]
        return packing

    def _counted(self) -> tuple[int, int]:
        row = self.connection.execute(self.table.compose("count_rows")).fetchone() or {}
        return row["rows"], row["with_bytes"]

    def _waiting(self, sentence: str) -> None:
        self.on_progress(Progress(step=sentence, part=self.table.part))


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[step] = round(time.monotonic() - started, 3)


def _rejects(folder: Path | None) -> RejectsFile | nullcontext[None]:
    return nullcontext() if folder is None else RejectsFile(folder / REJECTS)
