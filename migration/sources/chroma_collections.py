"""What a Chroma database says of its collections: where they belong, how they were searched, which segments hold them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from database.errors import InvalidInputError
from database.sql import statements
from migration.source import Distance
from migration.sources.chroma_snapshot import RECOVER

SQL = statements(Path(__file__).with_name("chroma.sql"))

VECTOR_SEGMENT = "urn:chroma:segment/vector/hnsw-local-persisted"
METADATA_SEGMENT = "urn:chroma:segment/metadata/sqlite"
DEFAULT_TENANT, DEFAULT_DATABASE = "default_tenant", "default_database"

Row = dict[str, Any]

_TABLES = frozenset(
    {"migrations", "collections", "segments", "embeddings", "embedding_metadata", "embeddings_queue", "max_seq_id"}
)
_GENERATIONS = (
    ("1.5.0", "metadb", 6),
    ("1.3.0", "sysdb", 10),
    ("1.0.0", "metadb", 5),
    ("0.5.6", "embeddings_queue", 2),
    ("0.5.4", "sysdb", 7),
    ("0.5.0", "sysdb", 5),
    ("0.4.15", "sysdb", 4),
    ("0.4.6", "metadb", 3),
    ("0.4.4", "metadb", 2),
    ("0.4.0", "metadb", 1),
)
"""Which version was the first to bring which step of the schema."""

_NEWEST = {"metadb": 6, "sysdb": 10, "embeddings_queue": 2}


@dataclass(frozen=True, kw_only=True)
class Collection:
    """
    A collection as the database describes it.

    :param number: Its number here, from 1.
    :param id: Its UUID.
    :param name: Its name, with tenant and database before it where they are not the default ones.
    :param dimension: Length of its vectors; `None` before the first.
    :param spaces: What its index was made for, by where that is said; empty if nowhere: then it is l2.
    :param vector_segment: Id of the segment with its vectors.
    :param metadata_segment: Id of the segment with its metadata.
    :param facts: For the receipt.
    :param refusal: Why it cannot be read.
    """

    number: int
    id: str
    name: str
    dimension: int | None
    spaces: Mapping[str, str]
    vector_segment: str
    metadata_segment: str
    facts: dict[str, Any] = field(default_factory=dict)
    refusal: str | None = None

    @property
    def space(self) -> str:
        """What the index was made for; where two places disagree, the first."""
        return next(iter(self.spaces.values()), "l2")

    def conflict(self, made_for_cosine: bool | None) -> str | None:
        """
        Why the distance is not certain.

        :param made_for_cosine: What the index looks like, where there is one.
        """
        if any(space not in get_args(Distance) for space in self.spaces.values()):
            return f"the distance is unknown: {_listed(self.spaces)}; expected cosine, l2 or ip"
        if len(set(self.spaces.values())) > 1:
            return f"its distance is stated differently: {_listed(self.spaces)}; say which one is right"
        if made_for_cosine is not None and made_for_cosine != (self.space == "cosine"):
            index = "the cosine" if made_for_cosine else "l2 or ip"
            stated = _listed(self.spaces) or "l2, because no other distance is stated"
            return f"its index was made for {index}, but its distance is {stated}; say which one is right"
        return None


def read_tables(connection: sqlite3.Connection) -> set[str]:
    """
    The tables that are there.

    :raises InvalidInputError: If they are not Chroma's.
    """
    tables = {name for (name,) in connection.execute(SQL["tables"])}
    if missing := _TABLES - tables:
        found = ", ".join(sorted(tables)[:10]) or "none"
        raise InvalidInputError(
            f"chroma.sqlite3 is not a database of chromadb: the tables {', '.join(sorted(missing))} are missing, found: {found}.",
            hint="Give the folder that PersistentClient(path=…) was given.",
        )
    return tables


def check_tables(connection: sqlite3.Connection, tables: set[str]) -> None:
    """
    That no row is lost in a damaged table, and that no index leads to another row: SQLite would not say so by itself.

    :raises InvalidInputError: With what SQLite found.
    """
    for table in sorted(tables & (_TABLES | {"databases", "collection_metadata", "embedding_metadata_array"})):
        check = "quick_check" if table == "embedding_metadata" else "integrity_check"
        ((found, *_), *_) = connection.execute(f"PRAGMA {check}({table})")
        if found != "ok":
            raise InvalidInputError(f"chroma.sqlite3 is damaged, in the table {table}: {found}", hint=RECOVER)
    by_rows, by_index = (connection.execute(SQL[f"metadata_by_{way}"]).fetchone() for way in ("rows", "index"))
    if by_rows != by_index:
        raise InvalidInputError("chroma.sqlite3 is damaged: an index of embedding_metadata is wrong.", hint=RECOVER)
    for (table,) in connection.execute(SQL["strange_types"]):
        raise InvalidInputError(f"chroma.sqlite3 holds values in the table {table} that chromadb does not write there.")


def columns(connection: sqlite3.Connection, table: str) -> set[str]:
    """The columns of a table."""
    return {name for (name,) in connection.execute(SQL["columns"], {"table": table})}


def read_generation(connection: sqlite3.Connection) -> str:
    """Which version of chromadb has last brought the schema up to date, as far as its steps tell."""
    newest: dict[str, int] = {}
    for row in _rows(connection.execute("SELECT * FROM migrations")):
        newest[row["dir"]] = max(newest.get(row["dir"], 0), row["version"])
    if any(step > _NEWEST.get(name, step) for name, step in newest.items()):
        return f"newer than {_GENERATIONS[0][0]}"
    since = next((version for version, name, step in _GENERATIONS if newest.get(name, 0) >= step), "0.4.0")
    return f"{since} or newer"


def read_collections(connection: sqlite3.Connection, tables: set[str]) -> list[Collection]:
    """Every collection of every database and tenant, by name and id."""
    databases = {}
    if "databases" in tables:
        databases = {row["id"]: row for row in _rows(connection.execute("SELECT * FROM databases"))}
    segments: dict[str, list[Row]] = {}
    for row in _rows(connection.execute("SELECT * FROM segments ORDER BY id")):
        segments.setdefault(row["collection"], []).append(row)
    own = _spaces(connection.execute("SELECT * FROM collection_metadata WHERE key = 'hnsw:space'"), "collection_id")
    of_segments = _spaces(connection.execute("SELECT * FROM segment_metadata WHERE key = 'hnsw:space'"), "segment_id")
    found = []
    for row in _rows(connection.execute("SELECT * FROM collections ORDER BY id")):
        database = databases.get(row.get("database_id"), {})
        place = (database.get("tenant_id", DEFAULT_TENANT), database.get("name", DEFAULT_DATABASE))
        found.append((_qualified(row["name"], *place), place, row, segments.get(row["id"], [])))
    return [
        _collection(number, name, place, row, mine, own, of_segments)
        for number, (name, place, row, mine) in enumerate(sorted(found, key=lambda each: (each[0], each[2]["id"])), 1)
    ]


def _collection(
    number: int,
    name: str,
    place: tuple[str, str],
    row: Row,
    segments: list[Row],
    own: dict[str, str],
    of_segments: dict[str, str],
) -> Collection:
    vectors = [segment for segment in segments if segment["scope"] == "VECTOR"]
    metadata = [segment for segment in segments if segment["scope"] == "METADATA"]
    spaces, model, refusal = _configured(row)
    if vectors and (space := of_segments.get(vectors[0]["id"])) is not None:
        spaces["the vector segment's metadata"] = space
    if (space := own.get(row["id"])) is not None:
        spaces["the metadata hnsw:space"] = space
    facts = {"tenant": place[0], "database": place[1]}
    return Collection(
        number=number,
        id=row["id"],
        name=name,
        dimension=row["dimension"],
        spaces=spaces,
        vector_segment=vectors[0]["id"] if vectors else "",
        metadata_segment=metadata[0]["id"] if metadata else "",
        facts={**facts, "embedding_function": model} if model else facts,
        refusal=refusal or _unknown_segments(vectors, VECTOR_SEGMENT) or _unknown_segments(metadata, METADATA_SEGMENT),
    )


def _qualified(name: str, tenant: str, database: str) -> str:
    return name if (tenant, database) == (DEFAULT_TENANT, DEFAULT_DATABASE) else f"{tenant}/{database}/{name}"


def _unknown_segments(segments: list[Row], expected: str) -> str | None:
    types = [segment["type"] for segment in segments]
    if types == [expected]:
        return None
    return f"one segment {expected} was expected, found {', '.join(map(str, types)) or 'none'}"


def _configured(row: Row) -> tuple[dict[str, str], str | None, str | None]:
    """
    The distance and the embedding model that the configuration names, and why it cannot be read.

    What 0.5.4 to 0.6 wrote there (`hnsw_configuration`) says l2 for every collection, and they did not use it. The index
    stands under `vector_index` in 1.0, and without that from 1.1 on.
    """
    spaces: dict[str, str] = {}
    try:
        schema = json.loads(row.get("schema_str") or "{}") or {}
        configuration = json.loads(row.get("config_json_str") or "{}") or {}
        index = _vector_index(schema)
        if (space := index.get("space")) is not None:
            spaces["schema_str"] = str(space)
        indexes = configuration.get("vector_index") or configuration
        hnsw = indexes.get("hnsw") or indexes.get("spann") or {}
        if (space := hnsw.get("space")) is not None:
            spaces["config_json_str"] = str(space)
        function = configuration.get("embedding_function") or index.get("embedding_function") or {}
        model = (function.get("config") or {}).get("model_name")
        name = function.get("name")
        return spaces, " ".join(str(each) for each in (name, model) if each) or None, None
    except (ValueError, AttributeError, RecursionError) as exc:
        return spaces, None, f"its configuration cannot be read: {exc}"


def _vector_index(schema: Row) -> Row:
    index: Row = {}
    for place in (schema.get("defaults") or {}, (schema.get("keys") or {}).get("#embedding") or {}):
        vectors = (place.get("float_list") or {}).get("vector_index") or {}
        index = vectors.get("config") or index
    return index


def _spaces(cursor: sqlite3.Cursor, owner: str) -> dict[str, str]:
    return {row[owner]: str(row["str_value"]) for row in _rows(cursor) if row["str_value"] is not None}


def _listed(spaces: Mapping[str, str]) -> str:
    return ", ".join(f"{space} in {place}" for place, space in spaces.items())


def _rows(cursor: sqlite3.Cursor) -> list[Row]:
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]
