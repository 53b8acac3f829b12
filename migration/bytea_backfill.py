"""
Filling the vector column of rows that were there before its trigger, while the application goes on writing.

A batch is read, unpacked here and written back by one statement, which is its own transaction: it takes the rows whose version
is still the one that was read, passes over those that somebody holds, and notes how far it came. So nothing that the application
writes is ever undone, no lock outlives a statement, and a run that is killed anywhere goes on where it was.

What was passed over, or moved to a key that had been passed, is found by further rounds over the rows that have no vector yet,
until a round finds none that fits.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

from database.errors import GuardError
from migration.bytea_changes import PATIENCE
from migration.bytea_table import STATEMENTS, ByteaTable, holder_text
from migration.bytea_values import Packing, VectorArray, register_vector_array, unpack
from migration.progress import OnProgress, Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from psycopg import Connection

STEP = "filling"
TARGET_SECONDS = 0.025
"""What a writing statement should take, as its rows stay locked meanwhile; a batch is cut into as many as that needs."""

LIMIT_MS = 80
"""A statement that takes longer is taken back by the server and made again with half the rows."""

LEAST_ROWS = 10
_RESTING = 0.5
"""Seconds between rounds that found all that was left to be held by others."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows as they were read: keys as text, versions, bytes."""

    keys: list[list[str]]
    versions: list[int]
    values: list[bytes]


class Backfill:
    """
    The backfill of one column.

    :param reader: In autocommit mode; reads what is left.
    :param writer: Likewise, for this alone: its settings are changed.
    :param table: With its vector column and trigger.
    :param packing: How the bytes are read.
    :param keep_zero: Whether vectors of nothing but zeros are taken.
    :param batch: Rows that are read at once and written at most at once.
    :param pause: Seconds of rest after each batch.
    :param skip_triggers: Whether the table's other triggers are to sleep for these writes; needs a superuser's right.
    :param on_progress: Called after each batch.

    `filled` says how many rows were written, `slowest` how many seconds the longest of the writing statements took.
    """

    def __init__(
        self,
        reader: Connection[Any],
        writer: Connection[Any],
        table: ByteaTable,
        packing: Packing,
        *,
        keep_zero: bool,
        batch: int,
        pause: float,
        skip_triggers: bool,
        on_progress: OnProgress,
    ) -> None:
        self.reader, self.writer, self.table, self.packing = reader, writer, table, packing
        self.keep_zero, self.batch, self.pause, self.on_progress = keep_zero, batch, pause, on_progress
        self.filled = 0
        self.slowest = 0.0
        self._gone_through = 0
        self._at_once = float(min(batch, 200))
        self._position: list[str] | None = None
        register_vector_array(writer, array_oid=table.vector_array_oid)
        self._prepare(skip_triggers=skip_triggers)

    def run(self, position: list[str] | None, *, total: int | None = None) -> None:
        """
        Fill every row that can be filled.

        :param position: Where a run before this one had come to.
        :param total: How many rows have bytes, for the progress.
        :raises GuardError: If somebody holds a row for longer than `PATIENCE`.
        """
        self._position = position
        self._round(position, total=total, moving=True)
        deadline = time.monotonic() + PATIENCE
        while left := self._round(None, total=total, moving=False):
            if time.monotonic() > deadline:
                own = [connection.info.backend_pid for connection in (self.reader, self.writer)]
                held = self.reader.execute(STATEMENTS["holders"], {"table": self.table.oid, "ours": own})
                who = "; ".join(map(holder_text, held)) or "unknown processes"
                raise GuardError(
                    f"{left:,} rows of {self.table.shown} were expected to come free, but are held by others: {who}.",
                    hint="End their transactions and run it again.",
                )
            time.sleep(_RESTING)

    def _prepare(self, *, skip_triggers: bool) -> None:
        """
        Settings of the writer. Batches go by the key's index, whatever the planner thinks of a table that was never
        analysed; and as a batch that a crash undoes takes its note with it, no commit has to wait for the disk.
        """
        settings = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off", "jit": "off"}
        settings |= {"synchronous_commit": "off", "application_name": "synapse bytea backfill"}
        if skip_triggers:
            settings["session_replication_role"] = "replica"
        for name, value in settings.items():
            self._set(name, value)
        self._allow(LIMIT_MS)

    def _set(self, name: str, value: str) -> None:
        self.writer.execute("SELECT set_config(%s, %s, false)", [name, value])

    def _allow(self, milliseconds: int) -> None:
        self._limit = milliseconds
        self._set("statement_timeout", f"{milliseconds}ms")

    def _round(self, position: list[str] | None, *, total: int | None, moving: bool) -> int:
        """
        Go once through the rows behind a position.

        :param moving: Whether the position that is kept in the database moves along.
        :returns: How many rows would fit, but were changed or held by others.
        """
        left = 0
        for batch in self._batches(position):
            places, vectors = unpack(batch.values, self.packing).fitting(self.keep_zero)
            written = self._write(batch, places, vectors, moving=moving)
            left += len(places) - written
            self.filled += written
            self._gone_through += len(batch.keys) if moving else written
            self.on_progress(Progress(step=STEP, part=self.table.part, done=self._gone_through, total=total))
            if self.pause:
                time.sleep(self.pause)
        return left

    def _batches(self, position: list[str] | None) -> Iterator[_Batch]:
        while True:
            beyond, key = self.table.beyond(position)
            statement = self.table.compose("unfilled", beyond=beyond)
            rows = self.reader.execute(statement, {"limit": self.batch, **key}, binary=True).fetchall()
            if not rows:
                return
            keys, versions, values = ([row[name] for row in rows] for name in ("key", "version", "packed"))
            yield _Batch(keys, versions, values)
            position = keys[-1]

    def _write(self, batch: _Batch, places: NDArray[np.intp], vectors: NDArray[np.float32], *, moving: bool) -> int:
        """Write a batch's vectors, in as many statements as keep each of them short."""
        written = start = 0
        while start < len(places):
            end = start + int(self._at_once)
            chosen = places[start:end].tolist()
            last = batch.keys[-1] if end >= len(places) else batch.keys[chosen[-1]]
            if moving:
                self._position = last
            try:
                written += self._fill(batch, chosen, vectors[start:end])
                start = end
            except psycopg.errors.QueryCanceled:
                self._shorten()
        if not len(places) and moving:
            self._position = batch.keys[-1]
            self.writer.execute(self.table.compose("move_on"), self._noted())
        return written

    def _fill(self, batch: _Batch, chosen: Sequence[int], vectors: NDArray[np.float32]) -> int:
        columns = zip(*(batch.keys[place] for place in chosen), strict=True)
        parameters = {f"k{number}": list(column) for number, column in enumerate(columns)}
        given = {
            **parameters,
            **self._noted(),
            "versions": [batch.versions[place] for place in chosen],
            "vectors": VectorArray(vectors, self.table.vector_oid),
        }
        started = time.perf_counter()
        row = self.writer.execute(self.table.compose("fill"), given).fetchone() or {"rows": 0}
        self._adapt(time.perf_counter() - started)
        return int(row["rows"])

    def _shorten(self) -> None:
        """After a statement that took too long: fewer rows, and where they are few already, more time."""
        if self._at_once <= LEAST_ROWS:
            self._allow(2 * self._limit)
        self._at_once = max(self._at_once / 2, LEAST_ROWS)

    def _noted(self) -> dict[str, Any]:
        return {"position": self._position, "name": self.table.name, "target_name": self.table.target}

    def _adapt(self, seconds: float) -> None:
        self.slowest = max(self.slowest, seconds)
        factor = min(max(TARGET_SECONDS / max(seconds, 1e-6), 0.5), 1.5)
        self._at_once = min(max(self._at_once * factor, LEAST_ROWS), self.batch)
