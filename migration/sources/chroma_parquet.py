"""
A directory that chromadb 0.3 has written: two Parquet files, which alone hold everything.

Rows of all collections stand in one file, in no order. Vectors are doubles there; what 0.3 searched by, and what PostgreSQL
keeps, is the nearest float32. Most are float32 already. Those that are not, such as decimals from an embedding service,
are counted under `rounded_to_float32`; beyond float32's range they are infinite.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from database.errors import InvalidInputError
from migration.source import Distance, Loss, Part, Position, Record
from migration.sources.chroma_parquet_files import COLLECTIONS, EMBEDDINGS, ParquetFiles
from migration.sources.chroma_writers import writer_of
from migration.sources.files import fingerprint

REPEATED = "repeated_in_source"

_SAMPLE = 1000
_MOST_REPEATED = 10_000
"""Rows under an id that comes again, which are held in memory."""


@dataclass
class _Collection:
    """
    A collection, and where its rows are.

    :param groups: Numbers of the row groups that have any.
    :param without_id: Rows whose id is NULL.
    :param earlier: By the last row of an id: the rows before with the same id.
    """

    id: str
    name: str
    metadata: Any
    refusal: str | None = None
    count: int = 0
    groups: list[int] = field(default_factory=list)
    without_id: int = 0
    earlier: dict[int, list[int]] = field(default_factory=dict)

    @property
    def superseded(self) -> set[int]:
        """Rows whose id comes again further on."""
        return {row for rows in self.earlier.values() for row in rows}


class ChromaParquet:
    """
    A directory of chromadb 0.3 as a source; a position is the number of a row, from 0.

    0.3 did not keep ids apart and showed all rows of one. The last is taken; the rows before it are its loss, unless they
    are the same.

    :param path: The folder with `chroma-collections.parquet` and `chroma-embeddings.parquet`.
    :raises ConfigurationError: If pyarrow is not installed.
    :raises InvalidInputError: If a file is missing, damaged, or not Chroma's, or if there is no collection.
    """

    kind = "chroma directory"
    version: str | None = "0.3"

    def __init__(self, path: str | Path) -> None:
        self._folder = Path(path)
        self.location = str(self._folder.resolve())
        self._files = ParquetFiles(self._folder)
        try:
            self._collections = {row["uuid"]: _collection(row) for row in self._files.collections}
            self._survey()
            if not self._collections:
                raise InvalidInputError(
                    f"{path} is a Chroma database without a collection: expected at least one.", hint="Check the path."
                )
        except BaseException:
            self.close()
            raise

    def parts(self) -> list[Part]:
        """Every collection, by name; rows of none that is known are a part that is refused."""
        return [self._part(each) for each in sorted(self._collections.values(), key=lambda each: (each.name, each.id))]

    def records(self, part: Part, *, after: Position | None = None) -> Iterator[Record]:
        """The collection's records in the file's order."""
        collection = self._collections[part.id]
        if part.refusal is not None:
            raise InvalidInputError(f"{part.name}: {part.refusal}")
        assert after is None or isinstance(after, int)
        superseded = collection.superseded
        replaced = {}
        if superseded:
            rows = self._files.records(collection.id, collection.groups)
            replaced = {record.position: record for record in rows if record.position in superseded}
        for record in self._files.records(collection.id, collection.groups, after=-1 if after is None else after):
            assert isinstance(record.position, int)
            if record.position in superseded:
                continue
            if record.position in collection.earlier:
                _note_earlier(record, [replaced[row] for row in collection.earlier[record.position]])
            yield record

    def fingerprint(self) -> str:
        """Over the two files; the folder's index says nothing that they do not."""
        return fingerprint(self._folder, (COLLECTIONS, EMBEDDINGS))

    def close(self) -> None:
        """Close the files."""
        self._files.close()

    def _survey(self) -> None:
        """Count the rows, and find where they are and which ids come again."""
        hashes: dict[str, list[NDArray[np.int64]]] = {}
        for _, group, owners, ids in self._files.ids():
            mine: dict[str, list[str | None]] = {}
            for owner, id in zip(owners, ids, strict=True):
                mine.setdefault(owner, []).append(id)
            for owner, found in mine.items():
                collection = self._owner(owner)
                collection.count += len(found)
                collection.without_id += found.count(None)
                if group not in collection.groups:
                    collection.groups.append(group)
                hashes.setdefault(owner, []).append(np.fromiter(map(hash, found), dtype=np.int64, count=len(found)))
        repeated = {owner: again for owner, found in hashes.items() if (again := _repeated(np.concatenate(found)))}
        if repeated:
            self._find_repeated(repeated)

    def _find_repeated(self, hashes: Mapping[str, set[int]]) -> None:
        rows: dict[tuple[str, str | None], list[int]] = {}
        for start, _, owners, ids in self._files.ids():
            for row, (owner, id) in enumerate(zip(owners, ids, strict=True), start):
                if hash(id) in hashes.get(owner, ()):
                    rows.setdefault((owner, id), []).append(row)
        for (owner, _), found in rows.items():
            if len(found) > 1:
                collection = self._owner(owner)
                collection.earlier[found[-1]] = found[:-1]
                collection.count -= len(found) - 1

    def _owner(self, id: str) -> _Collection:
        if id not in self._collections:
            refusal = (
                f"its rows belong to a collection that {COLLECTIONS} does not have; its name and distance are unknown"
            )
            self._collections[id] = _Collection(id, id, None, refusal)
        return self._collections[id]

    def _part(self, collection: _Collection) -> Part:
        metadata = collection.metadata if isinstance(collection.metadata, dict) else {}
        space = metadata.get("hnsw:space", "l2")
        refusal = collection.refusal
        if space not in get_args(Distance):
            refusal = refusal or f"its distance is unknown: {space!r}; expected cosine, l2 or ip"
        if collection.without_id:
            refusal = refusal or f"{collection.without_id:,} of its rows have no id"
        if len(collection.superseded) > _MOST_REPEATED:
            found = f"{len(collection.superseded):,} rows have an id that comes again"
            refusal = refusal or f"{found}; at most {_MOST_REPEATED:,} were expected"
        sample = list(islice(self._files.records(collection.id, collection.groups), _SAMPLE))
        lengths = Counter(len(record.embedding) for record in sample if record.embedding is not None)
        return Part(
            id=collection.id,
            name=collection.name,
            count=collection.count,
            dimension=lengths.most_common(1)[0][0] if lengths else None,
            distance=space if space in get_args(Distance) else "l2",
            facts={
                "schema": self.version,
                "writer": writer_of(collection.name, {str(record.id): record.meta for record in sample[:100]}),
                "distance_from": "the metadata hnsw:space" if "hnsw:space" in metadata else "the default",
            },
            refusal=refusal,
        )


def _collection(row: Mapping[str, Any]) -> _Collection:
    try:
        metadata, refusal = json.loads(row["metadata"] or "null"), None
    except (ValueError, RecursionError) as exc:
        metadata, refusal = None, f"its metadata cannot be read: {exc}"
    return _Collection(row["uuid"], row["name"], metadata, refusal)


def _repeated(hashes: NDArray[np.int64]) -> set[int]:
    hashes.sort()
    return set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())


def _note_earlier(record: Record, earlier: Sequence[Record]) -> None:
    record.notes += (REPEATED,)
    others = [each for each in earlier if _contents(each) != _contents(record)]
    if others:
        originals = [{"content": each.content, "meta": each.meta, "embedding": each.embedding} for each in others]
        record.losses += (Loss("repeated_id", "record", originals),)


def _contents(record: Record) -> tuple[Any, ...]:
    vector = None if record.embedding is None else record.embedding.tobytes()
    return record.content, json.dumps(record.meta, sort_keys=True), vector
