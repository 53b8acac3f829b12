"""
Where each record of a Chroma database is to be found, worked out in SQLite's temporary tables.

Nothing of the size of a collection is held in memory: ids, elements and entries of the log are joined by SQLite, on disk.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from database.errors import InvalidInputError
from migration.sources.chroma_collections import SQL, Collection, columns
from migration.sources.chroma_log import (
    DELETE,
    GONE,
    Entry,
    change_from_log,
    newest_vector,
    record_from_log,
    unstorable,
)
from migration.sources.chroma_pickle import SegmentPickle
from migration.sources.chroma_segment import Segment
from migration.sources.chroma_snapshot import Snapshot

_UUID = re.compile(r"[0-9a-fA-F-]{36}\Z")


class Placement:
    """
    What is found out about a directory.

    :param snapshot: Its database.
    :param tables: Which tables that has.
    :param collections: Its collections.
    """

    def __init__(self, snapshot: Snapshot, tables: set[str], collections: Sequence[Collection]) -> None:
        self._snapshot, self._connection = snapshot, snapshot.connection
        self._placed: set[int] = set()
        synced = self._execute("SELECT segment_id, seq_id FROM max_seq_id WHERE seq_id IS NOT NULL")
        self._synced = {segment: _number(seq) for segment, seq in synced}
        self.log_entries = {collection.number: 0 for collection in collections}
        booleans = "bool_value" in columns(self._connection, "embedding_metadata")
        self._connection.executescript(
            SQL["temporary_tables"]
            + SQL["meta_values" if booleans else "meta_values_without_booleans"]
            + SQL["meta_lists" if "embedding_metadata_array" in tables else "no_meta_lists"]
        )
        self._connection.create_function("unstorable", 1, unstorable, deterministic=True)
        with self._transaction():
            self._read_topics(collections)
            self._replay()

    def count(self, collection: Collection) -> int:
        """How many ids it holds."""
        (rows,) = self._execute(SQL["count_rows"], {"segment": collection.metadata_segment}).fetchone()
        added, gone = self.changes(collection)
        return int(rows) + added - gone

    def changes(self, collection: Collection) -> tuple[int, int]:
        """How many ids only the log holds, and how many it has deleted."""
        added, gone = self._execute(SQL["count_changes"], {"part": collection.number}).fetchone()
        return int(added), int(gone)

    def dimension_in_log(self, collection: Collection) -> int | None:
        """Length of a vector of the log."""
        row = self._execute(SQL["any_vector"], {"part": collection.number}).fetchone()
        return len(row[0]) // 4 if row and isinstance(row[0], bytes) else None

    def open_segment(self, collection: Collection) -> Segment | None:
        """
        The vectors of a collection; `None` if they have never been written to disk.

        :raises InvalidInputError: If its files do not fit together.
        """
        path = self._pickle(collection)
        if path is None:
            return None
        with SegmentPickle(path):  # what is wrong with it is said before anything is read
            pass
        return Segment(self._folder(collection), dimension=collection.dimension, cosine=collection.space == "cosine")

    def place(self, collection: Collection, segment: Segment | None) -> None:
        """Find each record's vector; once."""
        if collection.number in self._placed:
            return
        with self._transaction():
            for forget in ("forget_indexed", "forget_logged", "forget_lost"):
                self._execute(SQL[forget])
            synced = self._index(collection, segment)
            self._read_log(collection, synced)
            of_part = {"part": collection.number, "segment": collection.metadata_segment}
            self._execute(SQL["place"], of_part)
            self._execute(SQL["place_added"], of_part)
            self._execute(SQL["find_lost"], of_part)
            self._look_for_lost(collection)
        self._placed.add(collection.number)

    def _read_topics(self, collections: Sequence[Collection]) -> None:
        """A topic is `persistent://default/default/` and the collection's id."""
        known = {collection.id: collection for collection in collections if collection.refusal is None}
        for topic, count, _ in self._execute(SQL["log_topics"]).fetchall():
            if (collection := known.get(str(topic).rpartition("/")[2])) is not None:
                self.log_entries[collection.number] += count
                applied = self._synced.get(collection.metadata_segment, -1)
                self._execute(
                    "INSERT INTO topics VALUES (?, ?, ?, ?)",
                    (topic, collection.number, collection.metadata_segment, applied),
                )

    def _replay(self) -> None:
        """What the log adds to the tables."""
        self._execute(SQL["find_replayed"])
        histories = groupby(self._execute(SQL["histories"]), key=lambda entry: entry[:2])
        for (part, id), entries in histories:
            self._replay_one(part, id, list(entries))

    def _replay_one(self, part: int, id: str, history: list[tuple[Any, ...]]) -> None:
        entries = (Entry(seq, operation, self._metadata(seq, operation)) for _, _, seq, operation, *_ in history)
        row, row_seq, applied = history[0][4:]
        if row is not None:
            patch = change_from_log(entries, applied=applied, row_seq=_number(row_seq))
            if patch.values or patch.missing or patch.replaces or patch.gone or patch.unreadable:
                self._execute("INSERT INTO altered VALUES (?, ?, ?, ?)", (row, part, patch.gone, patch.dumps()))
        elif (record := record_from_log(entries)) is not None:
            seq, patch = record
            self._execute(
                "INSERT INTO added (seq, part, id, patch) VALUES (?, ?, CAST(? AS TEXT), ?)",
                (seq, part, id.encode("utf-8", "surrogateescape"), patch.dumps()),
            )

    def _metadata(self, seq: int, operation: int) -> str | None:
        if operation == DELETE:
            return None
        (metadata,) = self._execute(SQL["log_metadata"], {"seq": seq}).fetchone()
        return None if metadata is None else str(metadata)

    def _folder(self, collection: Collection) -> Path:
        if not _UUID.match(collection.vector_segment):
            raise InvalidInputError(f"{collection.vector_segment!r} is not the name of a segment's folder.")
        return self._snapshot.folder / collection.vector_segment

    def _pickle(self, collection: Collection) -> Path | None:
        path = self._folder(collection) / "index_metadata.pickle"
        return path if path.is_symlink() or path.exists() else None

    def _index(self, collection: Collection, segment: Segment | None) -> int:
        """Ids and elements of the segment. Returns the last entry of the log that it has."""
        self._execute("DROP INDEX IF EXISTS indexed_id")
        path, synced = self._pickle(collection), None
        if segment is not None and path is not None:
            with SegmentPickle(path) as pickle:
                elements = segment.elements_of(pickle.labels())
                self._connection.executemany("INSERT INTO indexed VALUES (?, ?)", elements)
                synced = self._synced.get(collection.vector_segment, pickle.max_seq_id)
        try:
            self._execute("CREATE UNIQUE INDEX indexed_id ON indexed (id)")
        except sqlite3.IntegrityError as exc:
            raise InvalidInputError(f"{path} names an id twice.") from exc
        return synced or 0

    def _read_log(self, collection: Collection, synced: int) -> None:
        if not self.log_entries[collection.number]:
            return
        entries = self._execute(SQL["unsynced_vectors"], {"part": collection.number, "synced": synced})
        for (id, there), history in groupby(entries, key=lambda entry: (entry[0], bool(entry[4]))):
            newest = newest_vector((entry[1:4] for entry in history), there=there)
            if newest is not None:
                self._execute("INSERT INTO logged VALUES (?, ?)", (id, None if newest == GONE else newest))

    def _look_for_lost(self, collection: Collection) -> None:
        """Vectors that the segment should have and has not may still be in older entries."""
        histories = self._execute(SQL["lost_histories"], {"part": collection.number})
        for row, history in groupby(histories, key=lambda entry: entry[0]):
            newest = newest_vector((entry[1:4] for entry in history), there=None)
            if newest:
                where = {"part": collection.number, "row": row, "seq": newest}
                self._execute(SQL["recover_row" if row > 0 else "recover_added"], where)

    def _execute(self, statement: str, parameters: Any = ()) -> sqlite3.Cursor:
        return self._connection.execute(statement, parameters)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._execute("BEGIN")
        try:
            yield
        except BaseException:
            if self._connection.in_transaction:  # SQLite itself ends it where the disk is full
                self._execute("ROLLBACK")
            raise
        self._execute("COMMIT")


def _number(seq: Any) -> int:
    """The number of an entry: 8 or 24 bytes, big-endian, before 1.0."""
    if isinstance(seq, bytes):
        return min(int.from_bytes(seq, "big"), 2**63 - 1)
    return seq if isinstance(seq, int) else -1
