"""Documents tables in partitions by hash of id: everything works on them as on whole ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import psycopg
import pytest
from haystack import Document
from haystack.document_stores.types import DuplicatePolicy
from haystack.utils import Secret

from database.bulk_load import load_documents, missing_indexes
from database.connection import Database
from database.document_store import SynapseDocumentStore
from database.embedded import EmbeddedServer
from database.metadata_fields import declare_field, declared_fields, drop_field
from database.models import EmbeddingModel, add_model, drop_model, list_models, registered_model
from database.reindex import reindex

DIMENSION, PARTITIONS = 16, 3
TABLE = "documents_cut"


def documents(count: int, *, start: int = 0) -> list[Document]:
    made = np.random.default_rng(start).normal(size=(count, DIMENSION))
    return [
        Document(id=f"d{n}", content=f"word{n % 7}", embedding=made[n - start].tolist(), meta={"n": n})
        for n in range(start, start + count)
    ]


@pytest.fixture
def model(database: Database, owner: Database) -> Iterator[EmbeddingModel]:
    add_model(owner, EmbeddingModel.named("org/cut", dimension=DIMENSION, partitions=PARTITIONS))
    yield registered_model(owner, "cut")
    if any(model.name == "cut" for model in list_models(owner)):
        drop_model(owner, "cut")


@pytest.fixture
def store(model: EmbeddingModel, server: EmbeddedServer | None, owner_conninfo: str) -> SynapseDocumentStore:
    """As the application's role, in the tenant `default`."""
    return SynapseDocumentStore(
        connection_string=Secret.from_token(server.conninfo() if server else owner_conninfo),
        table_name=TABLE,
        embedding_dimension=DIMENSION,
    )


def test_the_application_reaches_documents_through_the_table_alone(
    store: SynapseDocumentStore, session_database: Database
) -> None:
    store.write_documents(documents(30))
    assert store.write_documents(documents(40), policy=DuplicatePolicy.SKIP) == 10
    assert store.write_documents(documents(50), policy=DuplicatePolicy.OVERWRITE) == 50
    assert store.count_documents() == 50
    assert len(store.keyword_search("word3", top_k=50)) == 7
    with session_database.connection() as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(f"SELECT count(*) FROM {TABLE}_p0")  # noqa: S608


def test_a_load_builds_the_index_of_each_partition(
    owner: Database, model: EmbeddingModel, store: SynapseDocumentStore
) -> None:
    assert load_documents(owner, model, documents(900)) == 900
    assert missing_indexes(owner) == []
    options = owner.read(
        "SELECT reloptions AS it FROM pg_class"
        " WHERE oid IN (SELECT relid FROM pg_partition_tree(%s::regclass) WHERE isleaf)",
        [f"{TABLE}_hnsw_index"],
    )
    assert [row["it"] for row in options] == [["m=8", "ef_construction=48"]] * PARTITIONS
    assert store.dense_search(documents(1)[0].embedding, top_k=1)[0].id == "d0"


def test_a_declared_field_has_an_index_on_each_partition(
    owner: Database, model: EmbeddingModel, store: SynapseDocumentStore
) -> None:
    store.write_documents(documents(900))
    assert declare_field(owner, TABLE, "n", "number").indexed
    (plan,) = owner.read_all(
        [f"EXPLAIN SELECT id FROM {TABLE} WHERE synapse_number(meta -> 'n'::text) = 5"]  # noqa: S608
    )
    found = " ".join(row["QUERY PLAN"] for row in plan)
    assert found.count("Index Scan") == PARTITIONS
    filters = {"field": "meta.n", "operator": "==", "value": 5}
    assert [document.id for document in store.filter_documents(filters)] == ["d5"]
    drop_field(owner, TABLE, "n")
    assert declared_fields(owner, TABLE) == []


def test_its_index_is_rebuilt_part_by_part(owner: Database, model: EmbeddingModel, store: SynapseDocumentStore) -> None:
    load_documents(owner, model, documents(900))
    seen = set()
    done = reindex(owner, TABLE, progress=lambda step: seen.add(step.index))
    assert done.rows == 900
    parts = owner.read("SELECT relid FROM pg_partition_tree(%s::regclass) WHERE isleaf", [done.index])
    assert len(parts) == PARTITIONS
    unattached = owner.read(
        "SELECT relname FROM pg_class WHERE relkind = 'i' AND NOT relispartition AND relname LIKE %s", [f"{TABLE}\\_p%"]
    )
    assert unattached == [], "nothing of the old index is left"
    assert {d.id for d in store.dense_search(documents(1)[0].embedding, top_k=10)} == {
        d.id
        for d in SynapseDocumentStore(
            connection_string=store.connection_string,
            table_name=TABLE,
            embedding_dimension=DIMENSION,
            search_strategy="exact_nearest_neighbor",
        ).dense_search(documents(1)[0].embedding, top_k=10)
    }


def test_it_goes_with_its_model(owner: Database, model: EmbeddingModel, store: SynapseDocumentStore) -> None:
    assert model.partitions == PARTITIONS
    store.write_documents(documents(10))
    assert drop_model(owner, "cut") == {"name": "cut", "table": TABLE, "documents": 10}
    assert owner.read("SELECT relname FROM pg_class WHERE relname LIKE %s", [f"{TABLE}%"]) == []
