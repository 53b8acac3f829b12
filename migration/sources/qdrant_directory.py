"""
A directory that qdrant-client's local mode has written: `meta.json`, and a SQLite file for each collection.

The client itself would write on opening (tables, outdated copies, `meta.json`), hold everything in memory, and run whatever
the pickled points ask for. So the files are read here: immutable, one point after the other, by an unpickler for data alone.
qdrant-client is not needed.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import numpy as np

from database.errors import GuardError, InvalidInputError
from migration.source import Loss, Part, Position, Record
from migration.sources.files import files_below, fingerprint
from migration.sources.qdrant import SAMPLE, Collection, describe
from migration.sources.qdrant_points import Model, id_of_key, json_payload, point_id, read_pickle

_STORAGE, _OLD_STORAGE = "storage.sqlite", "storage.dbm"

# Up to 1.16 each spelling of a UUID, and each protocol of the key's pickle, made a row of its own; the last one counts.
_OUTDATED = """
    SELECT number FROM (
        SELECT rowid AS number, row_number() OVER (PARTITION BY id_of_key(id) ORDER BY rowid DESC) AS age FROM points
    ) WHERE age > 1
"""


class QdrantDirectory:
    """
    A directory of qdrant-client's local mode, from 1.1.7 on, as a source.

    While it is open, no client can open the directory. Vectors are as they were written: local mode divides those of cosine
    collections by their length in memory only. A position is a row's number.

    :param path: The directory.
    :param vector: Which vector of a collection that has several.
    :param content_field: Key of the payload that is the text. No layout is looked for then.
    :raises InvalidInputError: If it is not such a directory.
    :raises GuardError: If a client has it open.
    """

    kind = "qdrant directory"
    version: str | None = None  # nothing in the files tells it

    def __init__(self, path: str | Path, *, vector: str | None = None, content_field: str | None = None) -> None:
        self._path, self._vector, self._content_field = Path(path), vector, content_field
        self.location = str(self._path.resolve())
        self._meta = _read_meta(self._path)
        self._lock = _lock(self._path)
        self._copies: dict[Path, tempfile.TemporaryDirectory[str]] = {}
        self._outdated: dict[str, frozenset[int]] = {}
        self._collections: dict[str, Collection] = {}

    def parts(self) -> list[Part]:
        """Every collection of `meta.json`, and every folder of one that is not in it."""
        folders = self._path / "collection"
        strays = [each.name for each in folders.iterdir() if each.is_dir()] if folders.is_dir() else []
        names = sorted({*self._meta["collections"], *strays})
        return [self._collection(name).part for name in names]

    def records(self, part: Part, *, after: Position | None = None) -> Iterator[Record]:
        """The points in the order in which they were written last."""
        collection = self._collection(part.id)
        if collection.part.refusal is not None:
            raise InvalidInputError(f"{part.name}: {collection.part.refusal}")
        outdated = self._outdated[part.id]
        with closing(self._open(self._storage(part.id))) as connection:
            rows = connection.execute(
                "SELECT rowid, id, point FROM points WHERE rowid > ? ORDER BY rowid", (-1 if after is None else after,)
            )
            try:
                for number, key, content in rows:
                    if number not in outdated:
                        yield _record(collection, number, key, content)
            except sqlite3.DatabaseError as exc:
                raise InvalidInputError(f"{self._storage(part.id)} is damaged: {exc}.") from exc

    def fingerprint(self) -> str:
        """Of every file, also of collections whose folder is a link."""
        storages = (self._storage(name) for name in self._meta["collections"])
        linked = (str(each.relative_to(self._path)) for each in storages if each.is_file())
        return fingerprint(self._path, {*files_below(self._path), *linked})

    def close(self) -> None:
        """Let clients open it again."""
        if self._lock is not None:
            self._lock.close()
        for copy in self._copies.values():
            copy.cleanup()

    def _collection(self, name: str) -> Collection:
        if name not in self._collections:
            self._collections[name] = self._describe(name)
        return self._collections[name]

    def _describe(self, name: str) -> Collection:
        config = self._meta["collections"].get(name)
        aliases = sorted(alias for alias, of in (self._meta.get("aliases") or {}).items() if of == name)
        facts: dict[str, Any] = {"aliases": aliases} if aliases else {}
        count, sample = 0, []
        refusal = self._refusal(name)
        if refusal is None:
            try:
                with closing(self._open(self._storage(name))) as connection:
                    outdated = frozenset(number for (number,) in connection.execute(_OUTDATED))
                    count = connection.execute("SELECT count(*) FROM points").fetchone()[0] - len(outdated)
                    sample = list(_sample(connection))
            except sqlite3.DatabaseError as exc:
                refusal = f"Its {_STORAGE} cannot be read: {exc}."
            else:
                self._outdated[name] = outdated
                facts |= {"outdated_copies": len(outdated)} if outdated else {}
        return describe(
            name,
            config or {},
            count=count,
            sample=sample,
            wanted=self._vector,
            content_field=self._content_field,
            facts=facts,
            refusal=refusal,
        )

    def _storage(self, name: str) -> Path:
        return self._path / "collection" / name / _STORAGE

    def _refusal(self, name: str) -> str | None:
        storage = self._storage(name)
        if name not in self._meta["collections"]:
            return "Its folder is there, but meta.json does not know it: a collection that was deleted, or lost its description."
        if Path(name).name != name:
            return "Its name leads out of the directory."
        if old := next(storage.parent.glob(f"{_OLD_STORAGE}*"), None):
            return (
                f"Its points are in {old.name}, the format of qdrant-client before 1.1.7, which later ones pass over silently. "
                "Scroll them with qdrant-client 1.1.6 from a copy of the directory, and upsert them into a new one."
            )
        return None if storage.is_file() else f"Its {_STORAGE} is missing."

    def _open(self, storage: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(str(self._settled(storage).resolve()))}?mode=ro&immutable=1", uri=True
        )
        connection.create_function("id_of_key", 1, id_of_key, deterministic=True)
        return connection

    def _settled(self, storage: Path) -> Path:
        """The file; where SQLite has left something beside it to finish, a copy in which that is done."""
        unfinished = [each for suffix in ("-journal", "-wal") if (each := Path(f"{storage}{suffix}")).exists()]
        if not unfinished:
            return storage
        if storage not in self._copies:
            self._copies[storage] = tempfile.TemporaryDirectory(prefix="synapse-migration-")
            for each in (storage, *unfinished):
                shutil.copyfile(each, Path(self._copies[storage].name) / each.name)
            with closing(sqlite3.connect(Path(self._copies[storage].name) / storage.name)) as connection:
                connection.execute("PRAGMA journal_mode = DELETE")
                connection.execute("SELECT count(*) FROM points")
        return Path(self._copies[storage].name) / storage.name


def _read_meta(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise InvalidInputError(f"{path} is not a directory.")
    if (path / "raft_state.json").exists() or (path / "collections").is_dir():
        raise InvalidInputError(
            f"{path} is the storage of a Qdrant server, which only the server can read.",
            hint="Start it on a copy of the directory, and migrate with --url.",
        )
    try:
        meta = json.loads((path / "meta.json").read_bytes())
    except FileNotFoundError:
        raise InvalidInputError(
            f"{path} holds no meta.json, which qdrant-client's local mode writes.",
            hint="Name the directory that was given to QdrantClient(path=...).",
        ) from None
    except ValueError as exc:
        raise InvalidInputError(f"{path / 'meta.json'} is damaged: {exc}.") from exc
    if not isinstance(meta, dict) or not isinstance(meta.get("collections"), dict):
        raise InvalidInputError(f"{path / 'meta.json'} is not qdrant-client's: it lists no collections.")
    return meta


def _lock(path: Path) -> BinaryIO | None:
    """Share the client's own lock, which it takes for itself alone; nothing is written."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        file = (path / ".lock").open("rb")
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise GuardError(
            f"{path} is open in a Qdrant client.", hint="End the program that has it open; it may be writing."
        ) from None
    return file


def _point(content: Any) -> dict[str, Any]:
    """
    The fields of a pickled point.

    :raises ValueError: If it is none.
    """
    point = read_pickle(content) if isinstance(content, bytes) else content
    fields = getattr(point, "fields", None)
    if not isinstance(point, Model) or not isinstance(fields, dict) or "id" not in fields:
        raise ValueError("the pickle is not read: it holds no point")
    if not isinstance(fields.get("payload"), dict | None):
        raise ValueError("the pickle is not read: its payload is no mapping")
    if not isinstance(fields.get("vector"), dict | list | np.ndarray | None):
        raise ValueError("the pickle is not read: its vector is none")
    return fields


def _sample(connection: sqlite3.Connection) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for (content,) in connection.execute("SELECT point FROM points ORDER BY rowid LIMIT ?", (SAMPLE,)):
        with suppress(ValueError):
            fields = _point(content)
            yield point_id(fields["id"]), json_payload(fields.get("payload") or {})[0]


def _record(collection: Collection, number: int, key: str, content: Any) -> Record:
    try:
        fields = _point(content)
        point = point_id(fields["id"])
        payload, losses = json_payload(fields.get("payload") or {})
        vectors = fields.get("vector")
    except ValueError as exc:
        # As a loss of the embedding, so that one decision settles it; the rejects file gets what is stored.
        lost = Loss("unreadable", "embedding", {"reason": str(exc), "stored": content})
        return Record(id_of_key(key), None, {}, None, number, losses=(lost,))
    return collection.record(point, payload, vectors, position=number, losses=losses)
