"""What a Chroma database says of its collections."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from database.errors import InvalidInputError
from migration.sources.chroma_collections import (
    METADATA_SEGMENT,
    VECTOR_SEGMENT,
    Collection,
    read_collections,
    read_generation,
    read_tables,
)
from migration.sources.chroma_writers import writer_of

SHA256 = "0123456789abcdef" * 4
UUID4 = "6f1d9c1e-0b57-4d5e-9a55-00000000000a"


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    """A catalogue with one collection, of the time before tenants and configurations."""
    found = sqlite3.connect(":memory:", isolation_level=None)
    found.executescript("""
        CREATE TABLE migrations (dir TEXT, version INTEGER);
        CREATE TABLE collections (id TEXT, name TEXT, dimension INTEGER);
        CREATE TABLE collection_metadata (collection_id TEXT, key TEXT, str_value TEXT);
        CREATE TABLE segments (id TEXT, type TEXT, scope TEXT, collection TEXT);
        CREATE TABLE segment_metadata (segment_id TEXT, key TEXT, str_value TEXT);
        INSERT INTO collections VALUES ('c', 'name', 8);
    """)
    segments = [("v", VECTOR_SEGMENT, "VECTOR", "c"), ("m", METADATA_SEGMENT, "METADATA", "c")]
    found.executemany("INSERT INTO segments VALUES (?, ?, ?, ?)", segments)
    yield found
    found.close()


def the_one(connection: sqlite3.Connection) -> Collection:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    (found,) = read_collections(connection, tables)
    return found


def configure(connection: sqlite3.Connection, **columns: Any) -> None:
    for name, value in columns.items():
        connection.execute(f"ALTER TABLE collections ADD COLUMN {name} TEXT")
        connection.execute(f"UPDATE collections SET {name} = ?", [json.dumps(value)])  # noqa: S608


def state(connection: sqlite3.Connection, *, collection: str | None = None, segment: str | None = None) -> None:
    """Say the distance in metadata."""
    if collection is not None:
        connection.execute("INSERT INTO collection_metadata VALUES ('c', 'hnsw:space', ?)", [collection])
    if segment is not None:
        connection.execute("INSERT INTO segment_metadata VALUES ('v', 'hnsw:space', ?)", [segment])


LEGACY = {
    "hnsw_configuration": {"space": "l2", "_type": "HNSWConfigurationInternal"},
    "_type": "CollectionConfigurationInternal",
}


def schema(space: str, *, default: str = "l2") -> dict[str, Any]:
    def index(space: str) -> dict[str, Any]:
        return {"float_list": {"vector_index": {"enabled": True, "config": {"space": space, "hnsw": {}}}}}

    return {"defaults": index(default), "keys": {"#embedding": index(space), "#document": {"string": {}}}}


@pytest.mark.parametrize(
    ("stated", "configured", "space"),
    [
        ({}, {}, "l2"),
        ({"collection": "cosine"}, {}, "cosine"),
        ({"collection": "cosine", "segment": "cosine"}, {"config_json_str": LEGACY}, "cosine"),
        ({"segment": "cosine"}, {"config_json_str": LEGACY}, "cosine"),  # modify() has replaced the metadata
        ({}, {"config_json_str": LEGACY}, "l2"),
        ({}, {"config_json_str": {"vector_index": {"hnsw": {"space": "ip"}}}}, "ip"),  # 1.0
        ({}, {"config_json_str": {"hnsw": {"space": "cosine"}, "spann": None}}, "cosine"),
        ({"collection": "ip"}, {"config_json_str": {"hnsw": {"space": "ip"}}}, "ip"),
        ({}, {"config_json_str": {}, "schema_str": schema("cosine")}, "cosine"),
        ({}, {"config_json_str": {}, "schema_str": {"defaults": schema("l2", default="ip")["defaults"]}}, "ip"),
        ({}, {"config_json_str": None, "schema_str": None}, "l2"),
    ],
)
def test_the_distance_is_where_its_version_has_it(
    connection: sqlite3.Connection, stated: dict[str, str], configured: dict[str, Any], space: str
) -> None:
    state(connection, **stated)
    configure(connection, **configured)
    found = the_one(connection)
    assert (found.space, found.conflict(None), found.refusal) == (space, None, None)
    assert found.conflict(made_for_cosine=space == "cosine") is None


@pytest.mark.parametrize(
    ("stated", "configured", "places"),
    [
        (
            {"collection": "cosine"},
            {"config_json_str": {"hnsw": {"space": "l2"}}},
            ["l2 in config_json_str", "cosine in the metadata"],
        ),
        ({"segment": "ip", "collection": "l2"}, {}, ["ip in the vector segment's metadata", "l2 in the metadata"]),
        (
            {"collection": "ip"},
            {"schema_str": schema("cosine")},
            ["cosine in schema_str", "ip in the metadata hnsw:space"],
        ),
        (
            {},
            {"schema_str": schema("cosine"), "config_json_str": {"hnsw": {"space": "ip"}}},
            ["cosine in schema_str", "ip in config"],
        ),
        ({"collection": "hamming"}, {}, ["unknown: hamming"]),
    ],
)
def test_places_that_disagree_are_named(
    connection: sqlite3.Connection, stated: dict[str, str], configured: dict[str, Any], places: list[str]
) -> None:
    state(connection, **stated)
    configure(connection, **configured)
    conflict = the_one(connection).conflict(None)
    assert conflict is not None
    assert all(place in conflict for place in places)


def test_an_index_that_looks_otherwise_is_a_conflict(connection: sqlite3.Connection) -> None:
    unstated = the_one(connection)
    assert "made for the cosine, but its distance is l2, because no other" in str(unstated.conflict(True))
    state(connection, collection="cosine")
    assert "made for l2 or ip, but its distance is cosine in the metadata" in str(the_one(connection).conflict(False))


@pytest.mark.parametrize("text", ["[", "[]", '"cosine"', '{"hnsw": []}', '{"vector_index": 1}', "[" * 100_000])
def test_a_configuration_that_cannot_be_read_is_a_refusal(connection: sqlite3.Connection, text: str) -> None:
    connection.execute("ALTER TABLE collections ADD COLUMN config_json_str TEXT")
    connection.execute("UPDATE collections SET config_json_str = ?", [text])
    found = the_one(connection)
    assert (found.refusal is None) == (text in ("[]", '{"hnsw": []}'))  # these two say nothing
    assert found.space == "l2"


def test_the_embedding_function_is_a_fact(connection: sqlite3.Connection) -> None:
    function = {"type": "known", "name": "sentence_transformer", "config": {"model_name": "all-MiniLM-L6-v2"}}
    configure(connection, config_json_str={"embedding_function": function})
    assert the_one(connection).facts["embedding_function"] == "sentence_transformer all-MiniLM-L6-v2"


def test_collections_of_other_tenants_have_them_in_their_name(connection: sqlite3.Connection) -> None:
    connection.executescript("""
        CREATE TABLE databases (id TEXT, name TEXT, tenant_id TEXT);
        INSERT INTO databases VALUES ('d', 'default_database', 'default_tenant'), ('e', 'mine', 'ours');
        ALTER TABLE collections ADD COLUMN database_id TEXT;
        UPDATE collections SET database_id = 'd';
        INSERT INTO collections VALUES ('b', 'name', 8, 'e'), ('a', 'another', NULL, 'd');
    """)
    found = read_collections(connection, {"databases"})
    assert [(each.number, each.name) for each in found] == [(1, "another"), (2, "name"), (3, "ours/mine/name")]
    assert found[2].facts == {"tenant": "ours", "database": "mine"}


@pytest.mark.parametrize(
    ("steps", "version"),
    [
        ({"metadb": 1, "sysdb": 3, "embeddings_queue": 1}, "0.4.0 or newer"),
        ({"metadb": 2, "sysdb": 3}, "0.4.4 or newer"),
        ({"metadb": 3, "sysdb": 5}, "0.5.0 or newer"),
        ({"metadb": 4, "sysdb": 9, "embeddings_queue": 2}, "0.5.6 or newer"),
        ({"metadb": 6, "sysdb": 10, "embeddings_queue": 2}, "1.5.0 or newer"),
        ({"metadb": 7, "sysdb": 10}, "newer than 1.5.0"),
        ({"another": 1}, "0.4.0 or newer"),
    ],
)
def test_the_version_is_told_by_the_steps_of_the_schema(
    connection: sqlite3.Connection, steps: dict[str, int], version: str
) -> None:
    rows = [(name, number) for name, last in steps.items() for number in range(1, last + 1)]
    connection.executemany("INSERT INTO migrations VALUES (?, ?)", rows)
    assert read_generation(connection) == version


def test_another_programs_database_is_refused(connection: sqlite3.Connection) -> None:
    with pytest.raises(
        InvalidInputError, match=r"tables embedding_metadata, embeddings, .* are missing, found: collection"
    ):
        read_tables(connection)


@pytest.mark.parametrize(
    ("name", "samples", "writer"),
    [
        ("any", {UUID4: ["_node_content", "_node_type", "doc_id"]}, "llama-index"),
        ("any", {SHA256: ["source_id"]}, "chroma-haystack"),
        ("langchain", {"1": []}, "langchain"),
        ("any", {UUID4: ["source"]}, "langchain"),
        ("any", {UUID4: [], "1": []}, None),
        ("any", {SHA256.upper(): []}, None),
        ("any", {}, None),
    ],
)
def test_the_writer_is_told_by_its_conventions(name: str, samples: dict[str, list[str]], writer: str | None) -> None:
    assert writer_of(name, samples) == writer
