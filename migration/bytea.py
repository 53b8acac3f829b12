"""
From float32 packed in a bytea column to a pgvector column beside it, in place, while the application goes on writing.

Expand, fill, check, finish: the column and a trigger that fills it for whatever is written from then on; the rows that were
there before; the index; every row read back, and searches compared; then, when asked to, the constraint that makes it final.
Each step looks at what is there and does what is missing, so that a run may end anywhere and the next one goes on.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psycopg

from database.errors import GuardError, InvalidInputError
from migration import bytea_changes, bytea_index
from migration.bytea_backfill import Backfill
from migration.bytea_canary import Canary, Searches, choose_queries
from migration.bytea_changes import OnWait, State
from migration.bytea_checks import Inventory, OnUnfit, Verified, found_dimension, sample, take_inventory, verify
from migration.bytea_index import Index
from migration.bytea_table import STATEMENTS, find_table, obstacles
from migration.bytea_values import KINDS, Packing, suspicions
from migration.progress import OnProgress, Progress, silent
from migration.receipt import Change, PartReceipt, Receipt
from migration.rejects import RejectsFile

if TYPE_CHECKING:
    from psycopg import Connection

    from database.connection import Database

POLICIES = ("stop", "keep", "reject")
REJECTS = "rejects.jsonl"
MOST_DIMENSIONS = 16_000
"""What pgvector's type vector takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """
    What is wanted.

    :param table: As SQL writes it.
    :param column: The bytea column, exactly.
    :param into: The vector column; by default the bytea column's name and `_vector`.
    :param dimension: Numbers per vector; `None` takes what most rows have.
    :param big_endian: Byte order; `None` means little-endian, and that a column which looks otherwise is refused.
    :param policies: By kind of row that does not fit: `stop`, `keep` or `reject`; `stop` where none is given.
    :param batch: Rows that are read at once, at least 1.
    :param pause: Seconds of rest after each batch.
    :param triggers: Whether the backfill fires the table's own triggers, `fire` or `skip`; `None` refuses if there are any.
    :param index: `None` builds none.
    :param memory: Bytes for the build of the index; `None` leaves it to machine and server.
    :param queries: Searches that are compared.
    :param effort: `hnsw.ef_search` or `ivfflat.probes` of these searches.
    :param least_overlap: What they must find of what is found in memory, 0 to 1.
    :param finish: Whether to make it final if all checks pass.
    :param constraint: Whether the final step makes PostgreSQL refuse rows with bytes and without a vector.
    :param keep_trigger: Whether the final step keeps the trigger.
    """

    table: str
    column: str
    into: str | None = None
    dimension: int | None = None
    big_endian: bool | None = None
    policies: Mapping[str, str] = field(default_factory=dict)
    batch: int = 1000
    pause: float = 0.0
    triggers: Literal["fire", "skip"] | None = None
    index: Index | None = field(default_factory=Index)
    memory: int | None = None
    queries: int = 50
    effort: int = 200
    least_overlap: float = 0.9
    finish: bool = False
    constraint: bool = True
    keep_trigger: bool = True

    def __post_init__(self) -> None:
        for kind, policy in self.policies.items():
            if kind not in KINDS:
                raise InvalidInputError(f"A kind must be one of {', '.join(KINDS)}, but is {kind!r}.")
            if policy not in POLICIES:
                raise InvalidInputError(f"The policy for {kind} must be stop, keep or reject, but is {policy!r}.")
        if self.dimension is not None and not 1 <= self.dimension <= MOST_DIMENSIONS:
            raise InvalidInputError(
                f"The dimension must be between 1 and {MOST_DIMENSIONS:,}, but is {self.dimension}."
            )
        if self.batch < 1 or self.pause < 0 or self.queries < 0 or not 0 <= self.least_overlap <= 1:
            raise InvalidInputError(
                "A batch of at least 1 row, a pause of at least 0 s, at least 0 queries and an overlap between 0 and 1 were "
                f"expected, but found {self.batch}, {self.pause}, {self.queries} and {self.least_overlap}."
            )

    def policy(self, kind: str) -> str:
        """What is done about rows of a kind that do not fit."""
        return self.policies.get(kind, "stop")

    @property
    def keep_zero(self) -> bool:
        """Whether vectors of nothing but zeros are taken."""
        return self.policy("zero_vector") == "keep"


@dataclass(kw_only=True)
class Outcome:
    """
    How a run ended.

    :param receipt: Its books.
    :param refusals: Why nothing was done, or not everything, a sentence each.
    :param notices: What a person should know.
    :param filled: Rows that this run has written.
    :param finished: Whether it is final.
    :param seconds: By step.
    """

    receipt: Receipt
    refusals: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    filled: int = 0
    finished: bool = False
    seconds: dict[str, float] = field(default_factory=dict)


def inspect(
    owner: Database, options: Options, *, folder: Path | None = None, on_progress: OnProgress = silent
) -> Outcome:
    """
    Make every check and write nothing to the database.

    :param folder: Where the rejects file goes; `None` writes none.
    :returns: With the receipt of a dry run; its refusals are what a migration would be refused for.
    """
    with owner.unpooled() as connection:
        run = _Run(owner, connection, options, on_progress=on_progress)
        with _rejects(folder) as rejects:
            return run.inspected(rejects)


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
        else:
            outcome = run.resumed()
        return outcome if outcome.refusals else run.carried_out(second, outcome, folder)


def revert(owner: Database, options: Options, *, on_wait: OnWait) -> list[str]:
    """
    Take away what was made for a column: index, trigger, function, constraint, vector column, state; never the bytes.

    :returns: What was removed; nothing if nothing of ours was there.
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
        self.owner, self.connection, self.options, self.on_progress = owner, connection, options, on_progress
        self.table = find_table(connection, options.table, column=options.column, target=options.into)
        self.own = [connection.info.backend_pid]
        self.started = time.time()
        self.state = self.known_state()
        self.found = obstacles(connection, self.table, own=self.own)
        self.doubts: list[str] = []
        self.packing = self._packing()
        if options.index is not None:
            options.index.check(self.packing.dimension)

    def known_state(self) -> State | None:
        """
        What a run before this one has left.

        :raises GuardError: If the new column is not ours, or was begun otherwise.
        """
        table, options = self.table, self.options
        state = bytea_changes.read_state(self.connection, table) if table.has_target else None
        if state is None:
            if table.has_target:
                raise GuardError(
                    f"Column {table.target} was to be made in {table.shown}, but is there already and not of this program.",
                    hint="Give another name with --into.",
                )
            return None
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

    def inspected(self, rejects: RejectsFile | None) -> Outcome:
        """Look at every row's bytes."""
        started = time.monotonic()
        found = take_inventory(
            self.connection,
            self.table,
            self.packing,
            on_unfit=self._listing(rejects),
            on_progress=self.on_progress,
        )
        outcome = self._outcome("dry run", found, rejects)
        part = outcome.receipt.parts[0]
        part.copied = found.with_bytes - sum(
            count for kind, count in found.kinds.items() if kind != "zero_vector" or not self.options.keep_zero
        )
        outcome.refusals = self._refusals(found)
        outcome.seconds["checking"] = time.monotonic() - started
        return outcome

    def resumed(self) -> Outcome:
        """Where a run before this one has made all these checks."""
        counted = self.connection.execute(self.table.compose("count_rows")).fetchone() or {}
        found = Inventory(rows=counted["rows"], with_bytes=counted["with_bytes"])
        outcome = self._outcome("migration", found, None)
        outcome.refusals = self._trigger_refusals()
        return outcome

    def carried_out(self, second: Connection[Any], outcome: Outcome, folder: Path | None) -> Outcome:
        """Make, fill, index, verify and, if asked to, finish."""
        total = outcome.receipt.parts[0].facts["with_bytes"]
        second.execute(STATEMENTS["session"])
        self.own.append(second.info.backend_pid)
        with _timed(outcome, "making the column"):
            bytea_changes.begin(
                self.connection,
                self.table,
                self.packing,
                keep_zero=self.options.keep_zero,
                trigger=self.state is None or not self.state.finished or self.state.trigger_wanted,
                on_wait=self._waiting,
                own=self.own,
            )
        self.table = replace(self.table, has_target=True)
        with _timed(outcome, "filling"):
            outcome.filled = self._filled(second, total)
        rows = outcome.receipt.parts[0].facts["rows"]
        if self.options.index is not None:
            with _timed(outcome, "indexing"):
                self._indexed(second, self.options.index, rows)
        with _rejects(folder) as rejects, _timed(outcome, "verifying"):
            return self._verified(outcome, rejects)

    def _filled(self, connection: Connection[Any], total: int) -> int:
        try:
            backfill = Backfill(
                connection,
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
        return backfill.run(self.state.position if self.state else None, total=total)

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

    def _verified(self, before: Outcome, rejects: RejectsFile | None) -> Outcome:
        options = self.options
        distance = options.index.distance if options.index else "cosine"
        canary = choose_queries(self.connection, self.table, self.packing, distance, count=options.queries)
        found = verify(
            self.connection,
            self.table,
            self.packing,
            keep_zero=options.keep_zero,
            on_unfit=self._listing(rejects),
            on_vectors=canary.observe,
            on_progress=self.on_progress,
        )
        outcome = self._outcome("migration", found, rejects)
        outcome.filled, outcome.seconds, outcome.notices = before.filled, before.seconds, before.notices
        outcome.refusals = self._stopped(found, verb="were written meanwhile and do not fit")
        self._close_books(outcome.receipt.parts[0], found, self._searched(canary))
        self._finish(outcome, found)
        return outcome

    def _searched(self, canary: Canary) -> Searches:
        self.on_progress(Progress(step="searching", part=self.table.part, total=len(canary.keys)))
        return canary.compare(self.connection, self.table, self.packing, self.options.index, effort=self.options.effort)

    def _close_books(self, part: PartReceipt, found: Verified, searches: Searches) -> None:
        part.copied = found.equal
        part.missing, part.different = found.missing, found.different
        part.source_checksum, part.target_checksum = f"{found.source_sum:032x}", f"{found.target_sum:032x}"
        least, index = self.options.least_overlap, self.options.index
        if index is not None:
            name = index.name_for(self.table)
            valid = bytea_index.index_is_valid(self.connection, self.table, index)
            part.checks["index"] = {"passed": valid, "name": name, "definition": bytea_index.wanted_definition(index)}
            if not valid:
                part.checks["index"]["found"] = f"index {name} is not valid"
        found_enough = searches.overlap >= least
        as_meant = searches.through_index or index is None or not searches.queries
        part.checks["canary"] = {
            "passed": found_enough and as_meant,
            "queries": searches.queries,
            "overlap@10": round(searches.overlap, 4),
            "worst": round(searches.worst, 4),
            "at_least": least,
            "through_index": searches.through_index,
        }
        if not found_enough:
            said = f"{searches.overlap:.3f} of what a search in memory finds, at least {least} was expected"
            part.checks["canary"]["found"] = said
        elif not as_meant:
            part.checks["canary"]["found"] = "the searches did not go through the index"

    def _finish(self, outcome: Outcome, found: Verified) -> None:
        options, state = self.options, self.state
        outcome.finished = bool(state and state.finished)
        if not options.finish or outcome.refusals or not outcome.receipt.closed:
            return
        if options.constraint and found.unfilled:
            outcome.refusals.append(
                f"{found.unfilled:,} rows have bytes and no vector, so that PostgreSQL cannot be told to refuse such rows. "
                "Correct or delete them, or finish with --no-constraint."
            )
            return
        bytea_changes.finish(
            self.connection,
            self.table,
            constraint=options.constraint,
            keep_trigger=options.keep_trigger,
            on_wait=self._waiting,
            own=self.own,
        )
        outcome.finished = True

    # What was found

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
        self.doubts = suspicions([value for value in values if len(value) == packing.size], packing)
        return packing

    def _refusals(self, found: Inventory) -> list[str]:
        doubts = []
        if self.doubts and self.options.big_endian is None:
            doubts = [
                f"The bytes in {self.table.part} were expected to be little-endian float32, but {doubt}. Give --big-endian or, "
                "if they are what was expected after all, --little-endian."
                for doubt in self.doubts
            ]
        return [*doubts, *self._stopped(found, verb="do not fit"), *self._trigger_refusals()]

    def _stopped(self, found: Inventory, *, verb: str) -> list[str]:
        return [
            f"{count:,} rows {verb}: {kind} ({KINDS[kind].split(';')[0]}), such as {_named(found, kind)}. "
            f"Choose with --on {kind}=keep or {kind}=reject."
            for kind, count in sorted(found.kinds.items())
            if self.options.policy(kind) == "stop"
        ]

    def _trigger_refusals(self) -> list[str]:
        if not self.found.triggers or self.options.triggers is not None:
            return []
        names = ", ".join(self.found.triggers)
        return [
            f"Filling the column would fire the table's own triggers for every row: {names}. "
            "Give --fire-triggers if that is right, or --skip-triggers, which needs the right to set session_replication_role."
        ]

    def _listing(self, rejects: RejectsFile | None) -> OnUnfit:
        actions = {"stop": "stopped", "keep": "changed", "reject": "rejected"}

        def write(key: list[str], kind: str, value: bytes) -> None:
            policy = self.options.policy(kind)
            if rejects is None or (kind == "zero_vector" and policy == "keep"):
                return
            rejects.write(
                part=self.table.part,
                id=key[0] if len(key) == 1 else key,
                kind=kind,
                action=actions[policy],
                field=self.table.column,
                original=value,
            )

        return write

    def _outcome(self, kind: str, found: Inventory, rejects: RejectsFile | None) -> Outcome:
        table, options = self.table, self.options
        part = PartReceipt(
            name=table.part,
            target=f"{table.schema}.{table.name}.{table.target}",
            records=found.with_bytes,
            facts={
                "rows": found.rows,
                "with_bytes": found.with_bytes,
                "dimension": self.packing.dimension,
                "byte_order": "big-endian" if self.packing.big_endian else "little-endian",
                "key": [name for name, _ in table.key],
                "needed_bytes": _needed_bytes(found.with_bytes, self.packing.dimension, options.index),
            },
        )
        for name, count in sorted(found.kinds.items()):
            policy = options.policy(name)
            part.changes[name] = Change(policy=policy, records=count)
            if policy == "reject":
                part.rejected += count
            elif policy == "keep" and name != "zero_vector":
                part.changed += count
        if isinstance(found, Verified) and found.without_bytes:
            part.notes["vector_without_bytes"] = found.without_bytes
        receipt = Receipt(
            kind=kind,
            source={"kind": "bytea column", "location": f"{self.owner.name} {table.part}", "version": None},
            target={"database": self.owner.name, "server_version": self.connection.info.server_version},
            options={
                "on": {kind: options.policy(kind) for kind in KINDS},
                "index": bytea_index.wanted_definition(options.index) if options.index else None,
            },
            parts=[part],
            rejects=rejects.summary() if rejects else {},
            run={
                "started": datetime.fromtimestamp(self.started, UTC).isoformat(timespec="seconds"),
                "seconds": round(time.time() - self.started, 3),
                "resumed": self.state is not None,
            },
        )
        return Outcome(receipt=receipt, notices=[*self.found.notices, *self._disk_notice(part.facts["needed_bytes"])])

    def _disk_notice(self, needed: int) -> list[str]:
        """PostgreSQL does not tell how much room it has; where its folder is on this machine, the machine does."""
        if self.state is not None:
            return []
        with suppress(psycopg.Error, OSError):
            row = self.connection.execute("SELECT current_setting('data_directory') AS folder").fetchone() or {}
            free = shutil.disk_usage(row["folder"]).free
            if (self.connection.info.host or "").startswith("/") and free < needed:
                return [f"About {_size(needed)} will be needed on the server's disk, which has {_size(free)} left."]
        return [f"About {_size(needed)} will be needed on the server's disk."]

    def _waiting(self, sentence: str) -> None:
        self.on_progress(Progress(step=sentence, part=self.table.part))


@contextmanager
def _timed(outcome: Outcome, step: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    outcome.seconds[step] = round(time.monotonic() - started, 3)


def _rejects(folder: Path | None) -> RejectsFile | nullcontext[None]:
    return nullcontext() if folder is None else RejectsFile(folder / REJECTS)


def _named(found: Inventory, kind: str) -> str:
    shown = [
        f"{', '.join(example['key'])} ({example['bytes']:,} bytes)" for example in found.examples[kind].examples[:3]
    ]
    return "; ".join(shown)


def _needed_bytes(rows: int, dimension: int, index: Index | None) -> int:
    """
    Room for the vectors and the new versions of their rows, and for the index, about.

    Until they are vacuumed, the old versions of the rows stay; an HNSW element fills its share of a page of 8 KB.
    """
    vectors = rows * (4 * dimension + 8)
    if index is None:
        return 2 * vectors
    number = 2 if index.halfvec else 4
    element = number * dimension + (100 + 24 * index.m if index.method == "hnsw" else 20)
    return 2 * vectors + rows * 8192 // max(1, 8100 // element)


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GB"
