"""
A directory that chromadb 0.4 to 1.5 has written, read from its files: SQLite, the log in it, and HNSW segments.

Metadata and documents are rows of `embeddings` and `embedding_metadata`. Vectors are in a segment's files as far as it was
synced, and in the log from there on. What the log holds beyond both is applied as Chroma would have, see `chroma_log`.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from database.errors import InvalidInputError
from migration.source import Distance, Loss, Part, Position, Record
from migration.sources.chroma_collections import (
    SQL,
    Collection,
    check_tables,
    read_collections,
    read_generation,
    read_tables,
)
from migration.sources.chroma_log import Patch
from migration.sources.chroma_placement import Placement
from migration.sources.chroma_segment import UNREADABLE, Layout, Segment
from migration.sources.chroma_snapshot import Snapshot
from migration.sources.chroma_writers import writer_of
from migration.sources.files import fingerprint

DOCUMENT = "chroma:document"
RECOVERED = "recovered_from_log"

_ROWS, _LOG = 0, 1
_CHUNK_RECORDS, _CHUNK_CHARACTERS = 1024, 8 << 20


class _Found(NamedTuple):
    """A record without its vector, and where that is: an element of the segment, or else an entry of the log."""

    record: Record
    element: int | None
    seq: int | None
    characters: int


class ChromaSqlite:
    """
    A directory of chromadb 0.4 to 1.5 as a source.

    A position is [0, row of `embeddings`] or, of records that only the log holds, [1, number of its entry].

    :param path: The folder with `chroma.sqlite3`.
    :param distances: What collections were searched by, by name, where the directory contradicts itself.
    :raises InvalidInputError: If it is not such a directory, holds no collection, or is being written.
    """

    kind = "chroma directory"

    def __init__(self, path: Path, *, distances: Mapping[str, Distance] | None = None) -> None:
        self.location = str(path)
        self._distances = dict(distances or {})
        self._snapshot = Snapshot(path)
        try:
            with self._snapshot.reading():
                tables = read_tables(self._snapshot.connection)
                check_tables(self._snapshot.connection, tables)
                self.version: str | None = read_generation(self._snapshot.connection)
                self._collections = read_collections(self._snapshot.connection, tables)
                self._check_names(path)
                self._placement = Placement(self._snapshot, tables, self._collections)
        except BaseException:
            self.close()
            raise

    def parts(self) -> list[Part]:
        """Every collection, by name."""
        with self._snapshot.reading():
            found = [self._part(collection) for collection in self._collections]
            self._snapshot.check_unchanged()
            return found

    def records(self, part: Part, *, after: Position | None = None) -> Iterator[Record]:
        """Records in the order in which they were first written, then those that only the log holds."""
        (collection,) = (each for each in self._collections if each.id == part.id)
        refusal = self._part(collection).refusal
        if refusal is not None:
            raise InvalidInputError(f"{part.name}: {refusal}")
        where, number = (int(step) for step in after) if isinstance(after, list) else (_ROWS, -(2**63))
        with self._snapshot.reading(), ExitStack() as stack:
            segment = self._placement.open_segment(collection)
            if segment is not None:
                stack.enter_context(closing(segment))
            self._placement.place(collection, segment)
            if where == _ROWS:
                yield from self._with_vectors(self._rows(collection, number), segment)
                number = 0
            yield from self._with_vectors(self._added(collection, number), segment)
            self._snapshot.check_unchanged()

    def fingerprint(self) -> str:
        """Over Chroma's own files; the folder may hold others."""
        return fingerprint(self._snapshot.folder, self._snapshot.files())

    def close(self) -> None:
        """Close the database."""
        self._snapshot.close()

    def _check_names(self, path: Path) -> None:
        if not self._collections:
            raise InvalidInputError(
                f"{path} is a Chroma database without a collection: expected at least one.",
                hint="Chroma makes an empty one where it finds none: check the path.",
            )
        names = {collection.name for collection in self._collections}
        if unknown := sorted(self._distances.keys() - names):
            raise InvalidInputError(
                f"a distance is given for {unknown[0]}, which is not there.",
                hint=f"There are: {', '.join(sorted(names))}.",
            )

    def _part(self, collection: Collection) -> Part:
        given = self._distances.get(collection.name)
        refusal, layout, made_for_cosine = collection.refusal, None, None
        if refusal is None:
            try:
                layout, made_for_cosine = self._index(collection)
            except InvalidInputError as exc:
                refusal = str(exc)
        if refusal is None and given is None:
            refusal = collection.conflict(made_for_cosine)
        dimension = collection.dimension or (
            layout.dimension if layout else self._placement.dimension_in_log(collection)
        )
        spaces: dict[str, Distance] = {"cosine": "cosine", "l2": "l2", "ip": "ip"}
        return Part(
            id=collection.id,
            name=collection.name,
            count=self._placement.count(collection),
            dimension=dimension,
            distance=given or spaces.get(collection.space, "l2"),
            facts={
                **collection.facts,
                "schema": self.version,
                "writer": self._writer(collection),
                "distance_from": "given" if given else next(iter(collection.spaces), "the default"),
                "index_elements": layout.elements if layout else None,
                "log_entries": self._placement.log_entries[collection.number],
                "only_in_log": self._placement.changes(collection)[0],
            },
            refusal=refusal,
        )

    def _index(self, collection: Collection) -> tuple[Layout | None, bool | None]:
        """What its index is like; nothing where none has been written."""
        segment = self._placement.open_segment(collection)
        if segment is None:
            return None, None
        with closing(segment):
            return segment.layout, segment.made_for_cosine

    def _writer(self, collection: Collection) -> str | None:
        samples: dict[str, list[str]] = {}
        for _, id, key in self._execute("sample", segment=collection.metadata_segment):
            samples.setdefault(str(id), []).append(str(key))
        return writer_of(collection.name.rpartition("/")[2], samples)

    def _rows(self, collection: Collection, after: int) -> Iterator[_Found]:
        where = {"part": collection.number, "after": after}
        values, lists = self._execute("values", **where), self._execute("lists", **where)
        value, listed = next(values, None), next(lists, None)
        for row, id, element, seq, altered, recovered in self._execute("heads", **where):
            meta: dict[str, Any] = {}
            losses: list[Loss] = []
            characters = 0
            while value is not None and value[0] == row:
                _, key, text, integer, real, truth = value
                if type(text) is str:
                    meta[key] = text
                    characters += len(text)
                else:
                    meta[key] = _value(key, text, integer, real, truth, losses)
                value = next(values, None)
            while listed is not None and listed[0] == row:
                _, key, text, integer, real, truth = listed
                held = meta.get(key)
                if type(held) is not list:
                    losses += [Loss("unreadable", f"meta.{key}", held)] if key in meta else []
                    held = meta[key] = []
                held.append(_value(key, text, integer, real, truth, losses))
                listed = next(lists, None)
            notes = (RECOVERED,) if recovered else ()
            if altered and self._patch(row, meta, losses):
                notes = (RECOVERED,)
            yield _Found(_record(id, meta, [_ROWS, row], losses, notes), element, seq, characters)

    def _added(self, collection: Collection, after: int) -> Iterator[_Found]:
        for seq, id, element, vector, patch in self._execute("additions", part=collection.number, after=after):
            meta: dict[str, Any] = {}
            losses: list[Loss] = []
            _apply(Patch.loads(patch), meta, losses)
            yield _Found(_record(id, meta, [_LOG, seq], losses, (RECOVERED,)), element, vector, len(patch))

    def _patch(self, row: int, meta: dict[str, Any], losses: list[Loss]) -> bool:
        (patch,) = self._execute("patch", row=row).fetchone()
        return _apply(Patch.loads(patch), meta, losses)

    def _with_vectors(self, found: Iterator[_Found], segment: Segment | None) -> Iterator[Record]:
        """Vectors are read for many records at once, but never for more than a few megabytes of text."""
        chunk: list[_Found] = []
        characters = 0
        for each in found:
            chunk.append(each)
            characters += each.characters
            if len(chunk) >= _CHUNK_RECORDS or characters >= _CHUNK_CHARACTERS:
                yield from self._chunk(chunk, segment)
                chunk, characters = [], 0
        yield from self._chunk(chunk, segment)

    def _chunk(self, chunk: list[_Found], segment: Segment | None) -> list[Record]:
        indexed = [each for each in chunk if each.element is not None and each.element != UNREADABLE]
        if indexed and segment is not None:
            vectors = segment.vectors(np.array([each.element for each in indexed], dtype=np.int64))
            for each, vector in zip(indexed, vectors, strict=True):
                each.record.embedding = vector
        logged = {each.seq: each.record for each in chunk if each.seq is not None}
        if logged:
            for seq, vector, encoding in self._execute("log_vectors", seqs=json.dumps(list(logged))):
                _decode(logged[seq], vector, encoding)
        for each in chunk:
            if each.element == UNREADABLE:
                each.record.losses += (
                    Loss("unreadable", "embedding", "its element of data_level0.bin is missing or deleted"),
                )
        return [each.record for each in chunk]

    def _execute(self, statement: str, **parameters: Any) -> sqlite3.Cursor:
        return self._snapshot.connection.execute(SQL[statement], parameters)


def _decode(record: Record, vector: Any, encoding: str | None) -> None:
    """The vector of an entry of the log."""
    kind = {"FLOAT32": "<f4", "INT32": "<i4"}.get(encoding or "")
    if kind is None or not isinstance(vector, bytes) or len(vector) % 4:
        original = {"encoding": encoding, "vector": vector.hex() if isinstance(vector, bytes) else repr(vector)}
        record.losses += (Loss("unreadable", "embedding", original),)
    elif vector:
        record.embedding = np.frombuffer(vector, dtype=kind).astype(np.float32, copy=False)


def _record(
    id: Any, meta: dict[str, Any], position: list[int | str], losses: list[Loss], notes: tuple[str, ...]
) -> Record:
    content = meta.pop(DOCUMENT, None)
    if content is not None and not isinstance(content, str):
        meta[DOCUMENT], content = content, None
    return Record(id, content, meta, None, position, tuple(losses), notes)


def _apply(patch: Patch, meta: dict[str, Any], losses: list[Loss]) -> bool:
    losses += [Loss("unreadable", "meta", entry) for entry in patch.unreadable]
    return patch.apply(meta)


def _value(key: str, text: Any, integer: Any, real: Any, truth: Any, losses: list[Loss]) -> Any:
    """The value of a key, from the columns of which one is set; SQLite makes NULL of NaN."""
    if text is not None:
        value = text
    elif integer is not None:
        value = integer
    elif real is not None:
        value = real
    elif truth is not None:
        return truth == 1
    else:
        return math.nan
    if isinstance(value, bytes):
        losses.append(Loss("unsupported_value", f"meta.{key}", value.hex()))
        return value.hex()
    return value
