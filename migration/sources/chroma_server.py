"""
A Chroma server from 0.5.23, asked over HTTP by chromadb's client.

The ids of each collection are listed once, at the beginning, and records are fetched by them: what others write meanwhile
neither doubles nor hides a record, and one that is gone is an error.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from database.errors import InvalidInputError, SynapseError
from migration.source import Distance, Loss, Part, Position, Record
from migration.sources.chroma_connection import DEFAULT_DATABASE, DEFAULT_TENANT, Connection, ServerRefusal
from migration.sources.chroma_writers import writer_of
from migration.sources.frozen_ids import FrozenIds

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection

URI = "chroma:uri"
"""Key of a record's URI, as Chroma's own files have it."""

_IDS_AT_ONCE = 10_000
_RECORDS_AT_ONCE, _NUMBERS_AT_ONCE = 1_000, 400_000
"""Below the 32,766 variables of an SQL statement that a server can use, and a few megabytes an answer."""

_SAMPLE = 100


class ChromaServer:
    """
    A Chroma server as a source.

    All databases of a tenant are read where the server can list them, from 0.6; before, and where one is given, that one.
    No server lists its tenants. A number that is not finite arrives as NaN, in vectors and in metadata. A position is the number of the
    record among the collection's ids in their order.

    :param url: As in `http://localhost:8000`.
    :param token: Sent with every request, and never shown.
    :param tenant: Chroma's default one where none is given.
    :param database: All of them, or the default one, where none is given.
    :raises ConfigurationError: If chromadb's client is not installed, or the token cannot be sent.
    :raises InvalidInputError: If the address is none, the server is older, the token is refused, or there is no collection.
    :raises SynapseError: If it does not answer.
    """

    kind = "chroma server"

    def __init__(
        self, url: str, *, token: str | None = None, tenant: str | None = None, database: str | None = None
    ) -> None:
        self._tenant, self._database = tenant or DEFAULT_TENANT, database
        self._connection = Connection(url, token=token)
        self.location = self._connection.location
        self._ids = FrozenIds()
        self._parts: dict[str, tuple[Part, Collection]] = {}
        try:
            listed = self._connection.databases(self._tenant) if database is None else None
            self._databases = [database or DEFAULT_DATABASE] if listed is None else listed
            self._scope = "all databases of the tenant" if listed is not None else "this database alone"
            first = self._databases[0] if self._databases else DEFAULT_DATABASE
            self.version: str | None = self._connection.version(self._tenant, first)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"ChromaServer({self.location!r})"

    def parts(self) -> list[Part]:
        """
        Every collection, by database and name; their ids are listed once.

        :raises InvalidInputError: If there is none.
        """
        if not self._parts:
            for database, collection in self._collections():
                self._parts[str(collection.id)] = self._part(database, collection), collection
        if not self._parts:
            where = ", ".join(f"{self._tenant}/{database}" for database in self._databases)
            raise InvalidInputError(
                f"The Chroma server at {self.location} has no collection in {where}: expected at least one.",
                hint="Choose another with --tenant and --database.",
            )
        return [part for part, _ in self._parts.values()]

    def records(self, part: Part, *, after: Position | None = None) -> Iterator[Record]:
        """The records by id."""
        if part.refusal is not None:
            raise InvalidInputError(f"{part.name}: {part.refusal}")
        self.parts()
        _, collection = self._parts[part.id]
        assert after is None or isinstance(after, int)
        at = 0 if after is None else after + 1
        for ids in self._ids.pages(part.id, after=at, size=_page_size(part.dimension)):
            for record in self._fetch(part.name, collection, ids):
                record.position = at
                yield record
                at += 1

    def fingerprint(self) -> str:
        """
        Of the collections' settings and all ids, listed anew.

        It does not tell that a record has other contents than before; verification, which reads them again, does.
        """
        digest = hashlib.sha256()
        for database, collection in self._collections():
            settings = [
                database,
                collection.name,
                str(collection.id),
                collection.metadata,
                collection.configuration_json,
            ]
            digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
            total, count = 0, 0
            try:
                for page in self._connection.ids(collection, at_once=_IDS_AT_ONCE):
                    count += len(page)
                    for id in page:
                        total += int.from_bytes(hashlib.blake2b(id.encode(), digest_size=16).digest(), "big")
            except ServerRefusal:
                count = -1
            digest.update(f"\n{count} {total}\n".encode())
        return digest.hexdigest()

    def close(self) -> None:
        """Close the connections, and forget the ids."""
        self._connection.close()
        self._ids.close()

    def _collections(self) -> Iterator[tuple[str, Collection]]:
        for database in self._databases:
            for collection in self._connection.collections(self._tenant, database):
                yield database, collection

    def _part(self, database: str, collection: Collection) -> Part:
        default = (self._tenant, database) == (DEFAULT_TENANT, DEFAULT_DATABASE)
        name = collection.name if default else f"{self._tenant}/{database}/{collection.name}"
        spaces, sample = _spaces(collection), []
        count, refusal = 0, _conflict(spaces)
        try:
            count = self._freeze(name, collection)
            first = next(self._ids.pages(str(collection.id), size=_SAMPLE), [])
            sample = list(self._fetch(name, collection, first))
        except ServerRefusal as exc:
            refusal = f"the server cannot read it ({exc.message}); its folder can be migrated instead"
        lengths = Counter(len(record.embedding) for record in sample if record.embedding is not None)
        space = next(iter(spaces.values()), "l2")
        return Part(
            id=str(collection.id),
            name=name,
            count=count,
            dimension=lengths.most_common(1)[0][0] if lengths else None,
            distance=space if space in get_args(Distance) else "l2",  # type: ignore[arg-type]
            facts={
                "tenant": self._tenant,
                "database": database,
                "read": self._scope,
                "writer": writer_of(collection.name, {record.id: record.meta for record in sample}),
                "distance_from": next(iter(spaces), "the default"),
            },
            refusal=refusal,
        )

    def _freeze(self, name: str, collection: Collection) -> int:
        count = self._connection.count(collection)
        listed = self._ids.add(str(collection.id), self._connection.ids(collection, at_once=_IDS_AT_ONCE))
        if listed is None or listed != count:
            found = "an id twice" if listed is None else f"{listed:,} ids"
            raise _changed(f"{name} counts {count:,} records and lists {found}.")
        return count

    def _fetch(self, name: str, collection: Collection, ids: Sequence[str]) -> Iterator[Record]:
        """Records in the order of their ids; a server gives them in its own, and passes over those it has not."""
        if not ids:
            return
        try:
            found = _by_id(self._connection.get(collection, ids))
        except (ServerRefusal, ValueError):  # of one record, so that none is given
            found = {}
            for id in ids:
                found |= self._one(collection, id)
        if gone := [id for id in ids if id not in found]:
            raise _changed(f"{name} no longer has {len(gone):,} of its records, the first is {gone[0]!r}.")
        for id in ids:
            yield found[id]

    def _one(self, collection: Collection, id: str) -> dict[str, Record]:
        """A record alone; also without its vector, if the server has lost it."""
        try:
            return _by_id(self._connection.get(collection, [id]))
        except ServerRefusal as exc:
            found = _by_id(self._connection.get(collection, [id], vectors=False))
            for record in found.values():
                record.losses += (Loss("unreadable", "embedding", exc.message),)
            return found
        except ValueError as exc:
            raise SynapseError(f"The server's answer for the record {id!r} does not fit together: {exc}.") from exc


def _page_size(dimension: int | None) -> int:
    return min(_RECORDS_AT_ONCE, max(1, _NUMBERS_AT_ONCE // (dimension or 1)))


def _spaces(collection: Collection) -> dict[str, str]:
    """
    The collection's distance, by where that is said.

    What 0.5.4 to 0.6 have in the configuration (`hnsw_configuration`) is l2 for every collection, and not what they use.
    """
    found = {}
    configuration = collection.configuration_json or {}
    index = configuration.get("hnsw") or configuration.get("spann") or {}
    if (space := index.get("space")) is not None:
        found["the configuration"] = str(space)
    if (space := (collection.metadata or {}).get("hnsw:space")) is not None:
        found["the metadata hnsw:space"] = str(space)
    return found


def _conflict(spaces: dict[str, str]) -> str | None:
    listed = ", ".join(f"{space} in {place}" for place, space in spaces.items())
    if any(space not in get_args(Distance) for space in spaces.values()):
        return f"its distance is unknown: {listed}; expected cosine, l2 or ip"
    if len(set(spaces.values())) > 1:
        return f"its distance is stated twice, and differently: {listed}; migrate its folder, with --distance"
    return None


def _by_id(answer: dict[str, Any]) -> dict[str, Record]:
    """
    The records of an answer.

    :raises ValueError: If it has an id twice, or not as many vectors as ids, so that they cannot be told apart.
    """
    ids = answer["ids"]
    columns = [answer[key] or [None] * len(ids) for key in ("documents", "metadatas", "uris")]
    rows = zip(ids, *columns, _vectors(answer["embeddings"]) or [None] * len(ids), strict=True)
    records = {row[0]: _record(*row) for row in rows}
    if len(records) != len(ids):
        raise ValueError("an id twice")
    return records


def _record(
    id: str, document: str | None, metadata: dict[str, Any] | None, uri: str | None, vector: NDArray[np.float32] | None
) -> Record:
    meta: dict[str, Any] = {}
    losses = []
    for key, value in (metadata or {}).items():
        if hasattr(value, "to_dict"):
            losses.append(Loss("extra_vectors", f"meta.{key}", value.to_dict()))  # a sparse vector
        else:
            meta[key] = [_number(item) for item in value] if isinstance(value, list) else _number(value)
    if uri is not None:
        meta[URI] = uri
    return Record(id, document, meta, vector, 0, tuple(losses))


def _number(value: Any) -> Any:
    """NaN for None, which Chroma's metadata cannot have: what JSON has no number for comes as that."""
    return math.nan if value is None else value


def _vectors(answer: Any) -> list[NDArray[np.float32] | None]:
    """Each record's vector; what JSON has no number for came as None, and is NaN."""
    if answer is None:
        return []
    if answer.dtype == object:
        return [None if each is None else np.array(each, dtype=np.float32) for each in answer]
    with np.errstate(over="ignore"):
        return list(answer.astype(np.float32))


def _changed(found: str) -> SynapseError:
    return SynapseError(found, hint="Something is writing to it: stop that, and migrate again.")
