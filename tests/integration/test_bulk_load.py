"""Bulk loads: indexes come back as they were, whatever happens in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psycopg
import pytest
from haystack import Document
from haystack.utils import Secret

from database import bulk_load, index_build
from database.bulk_load import LoadProgress, load_documents, missing_indexes
from database.connection import Database
from database.document_rows import DuplicateRowsError
from database.document_store import SynapseDocumentStore
from database.errors import GuardError, InvalidInputError, SchemaError
from database.index_build import Resources
from database.models import EmbeddingModel, active_model, add_model, registered_model
from tests.conftest import PROJECT

TABLE = "documents_new_model"
KILLED = """
import sys, time
from tests.integration.test_bulk_load import documents
from database import bulk_load
from database.connection import Database
from database.models import registered_model
bulk_load.BATCH = 100
owner = Database(sys.argv[1])
def slowly():
    for number, document in enumerate(documents(1000)):
        if number == 250:
            print("ready", flush=True)
            time.sleep(60)
        yield document
bulk_load.load_documents(owner, registered_model(owner, "new-model"), slowly())
"""


def documents(count: int, *, start: int = 0, dimension: int = 8) -> list[Document]:
    random = np.random.default_rng(start)
    return [
        Document(id=f"d{n}", content=f"content {n}", embedding=random.normal(size=dimension).tolist(), meta={"n": n})
        for n in range(start, start + count)
    ]


@pytest.fixture
def model(database: Database, owner: Database) -> EmbeddingModel:
    """A model that answers no questions, with an index of its own making."""
    add_model(owner, EmbeddingModel.named("org/new-model", dimension=8))
    with owner.connection() as connection:
        connection.execute(f"DROP INDEX {TABLE}_hnsw_index")
        connection.execute(
            f"CREATE INDEX {TABLE}_hnsw_index ON {TABLE} USING hnsw (embedding vector_cosine_ops)"
            " WITH (m = 7, ef_construction = 31)"
        )
        connection.execute(f"CREATE INDEX \"Field 'n'\" ON {TABLE} (((meta ->> 'n')::numeric)) WHERE id <> 'x'")
        connection.execute("COMMENT ON INDEX \"Field 'n'\" IS 'the user''s index'")
        connection.execute("ALTER INDEX \"Field 'n'\" ALTER COLUMN 1 SET STATISTICS 77")
        connection.execute(f"COMMENT ON TABLE {TABLE} IS 'the user''s own'")
    return registered_model(owner, "new-model")


def schema_of(owner: Database, table: str = TABLE) -> dict[str, Any]:
    """All that a load takes away for a while."""
    indexes = owner.read(
        "SELECT concat_ws(' / ', pg_get_indexdef(indexrelid), obj_description(indexrelid, 'pg_class'),"
        "                 (SELECT nullif(attstattarget, -1) FROM pg_attribute WHERE attrelid = indexrelid AND attnum = 1))"
        "       AS it FROM pg_index WHERE indrelid = %s::regclass AND indisvalid",
        [table],
    )
    triggers = owner.read(
        "SELECT tgname || ' ' || tgenabled::text AS it FROM pg_trigger WHERE tgrelid = %s::regclass", [table]
    )
    comment = owner.read("SELECT obj_description(%s::regclass, 'pg_class') AS it", [table])
    return {
        "indexes": sorted(row["it"] for row in indexes),
        "triggers": sorted(row["it"] for row in triggers),
        "comment": comment[0]["it"],
    }


def ids(database: Database, table: str = TABLE) -> set[str]:
    return {row["id"] for row in database.read(f"SELECT id FROM {table}")}  # noqa: S608


def test_documents_are_there_and_the_table_is_as_it_was(owner: Database, model: EmbeddingModel) -> None:
    before, seen = schema_of(owner), list[LoadProgress]()
    assert "m='7', ef_construction='31'" in str(before)
    assert "s index / 77" in str(before)
    assert load_documents(owner, model, iter(documents(4100)), progress=seen.append) == 4100
    assert ids(owner) == {f"d{n}" for n in range(4100)}
    assert schema_of(owner) == before
    assert [step.done for step in seen if step.step == "rows"] == [2000, 4000, 4100]
    (row,) = owner.read(f"SELECT * FROM {TABLE} WHERE id = 'd4099'")  # noqa: S608
    assert (row["content"], row["meta"]) == ("content 4099", {"n": 4099})
    assert row["embedding"].to_list() == pytest.approx(documents(4100)[4099].embedding)


def test_the_index_is_not_there_while_rows_come(owner: Database, model: EmbeddingModel) -> None:
    def looked_at() -> Iterator[Document]:
        yield from documents(bulk_load.BATCH)
        assert missing_indexes(owner) == [{"table_name": TABLE, "index_name": f"{TABLE}_hnsw_index", "loading": True}]
        yield from documents(10, start=bulk_load.BATCH)

    assert load_documents(owner, model, looked_at()) == bulk_load.BATCH + 10
    assert missing_indexes(owner) == []


def test_of_documents_with_one_id_the_policy_decides(owner: Database, model: EmbeddingModel) -> None:
    load_documents(owner, model, documents(5))
    again = [Document(id="d3", content="other"), Document(id="new", content="new")]
    with pytest.raises(DuplicateRowsError, match="d3"):
        load_documents(owner, model, again)
    assert "new" not in ids(owner), "a batch is written whole or not at all"
    assert load_documents(owner, model, again, policy="skip") == 1
    assert load_documents(owner, model, again, policy="overwrite") == 2
    with pytest.raises(DuplicateRowsError, match="twice"):
        load_documents(owner, model, [Document(id="twice"), Document(id="twice")])
    assert schema_of(owner)["comment"] == "the user's own"


def test_an_error_leaves_a_table_with_its_indexes(
    owner: Database, model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = schema_of(owner)
    monkeypatch.setattr(bulk_load, "BATCH", 10)
    with pytest.raises(InvalidInputError, match=r"'bad'.*U\+0000"):
        load_documents(owner, model, [*documents(25), Document(id="bad", content="\x00")])
    assert ids(owner) == {f"d{n}" for n in range(20)}, "batches before it are written"
    assert schema_of(owner) == before


def test_a_killed_load_is_ended_by_the_next(owner: Database, owner_conninfo: str, model: EmbeddingModel) -> None:
    before = schema_of(owner)
    command = [sys.executable, "-c", KILLED, owner_conninfo]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, env=os.environ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with pytest.raises(GuardError, match="being loaded by another process"):
            load_documents(owner, model, documents(1))
        process.send_signal(signal.SIGKILL)
    assert len(ids(owner)) == 200
    assert [index["loading"] for index in missing_indexes(owner)] == [True]
    for _ in range(100):  # the server notices a dead client a moment later
        try:
            assert load_documents(owner, model, []) == 0
            break
        except GuardError:
            time.sleep(0.1)
    assert schema_of(owner) == before
    assert load_documents(owner, model, documents(1000), policy="skip") == 800


def test_a_killed_build_is_ended_by_the_next(
    owner: Database, model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the rows and one of two indexes."""
    before = schema_of(owner)

    class KilledError(BaseException):
        pass

    built = []

    def killed(connection: Any, name: str, *arguments: Any, **more: Any) -> None:
        if built:
            raise KilledError
        built.append(name)
        index_build.build_index(connection, name, *arguments, **more)

    monkeypatch.setattr(bulk_load, "build_index", killed)
    with pytest.raises(KilledError):
        load_documents(owner, model, documents(10))
    assert len(schema_of(owner)["indexes"]) == 2, "the primary key and one index"
    monkeypatch.undo()
    load_documents(owner, model, [])
    assert schema_of(owner) == before


def test_a_table_that_answers_questions_keeps_its_indexes(owner: Database, database: Database) -> None:
    active = active_model(database)
    before = schema_of(owner, active.table_name)
    assert load_documents(owner, active, documents(3, dimension=384)) == 3, "while it is empty, nobody misses them"
    with pytest.raises(GuardError, match="answers questions"):
        load_documents(owner, active, documents(3, start=3, dimension=384))
    assert schema_of(owner, active.table_name) == before


def test_a_store_of_its_own_in_half_precision(owner: Database, owner_conninfo: str) -> None:
    store = SynapseDocumentStore(
        connection_string=Secret.from_token(owner_conninfo),
        table_name="documents_half",
        embedding_dimension=3072,
        vector_type="halfvec",
    )
    store.create_table()
    before = schema_of(owner, "documents_half")
    empty = [Document(id="without", content="no embedding"), Document(id="zero", content="", embedding=[0.0] * 3072)]
    try:
        assert load_documents(owner, store, [*documents(20, dimension=3072), *empty]) == 22
        assert schema_of(owner, "documents_half") == before
        wanted = documents(20, dimension=3072)[7]
        assert store.dense_search(wanted.embedding or [], top_k=1)[0].id == "d7"
        assert store.count_documents() == 22
    finally:
        store.delete_table()


def test_a_missing_table_is_one_sentence(owner: Database, database: Database) -> None:
    with pytest.raises(SchemaError, match="documents_nowhere was expected"):
        load_documents(owner, EmbeddingModel.named("nowhere", dimension=3), documents(1))


def test_a_graph_fits_into_the_memory_that_is_reckoned(owner: Database, database: Database) -> None:
    """pgvector says when it does not."""
    rows, dimension = 4000, 64
    definition = "CREATE INDEX fits_hnsw ON fits USING hnsw (embedding vector_cosine_ops) WITH (m = 24)"
    needed = index_build.graph_bytes(rows=rows, dimension=dimension, vector_type="vector", definition=definition)
    notices: list[str] = []
    with owner.unpooled() as connection:
        connection.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
        connection.execute(f"CREATE TEMPORARY TABLE fits (embedding vector({dimension}))")
        connection.execute(
            "INSERT INTO fits SELECT array_agg(random()) FROM generate_series(1, %s) AS row, generate_series(1, %s)"
            " GROUP BY row",
            [rows, dimension],
        )
        exact = needed - index_build.SPARE + 2**20  # memory is taken in blocks
        connection.execute(f"SET maintenance_work_mem = '{exact // 1024}kB'")
        connection.execute(definition)
        assert notices == []
        connection.execute("DROP INDEX fits_hnsw")
        connection.execute(f"SET maintenance_work_mem = '{exact // 2048}kB'")
        connection.execute(definition)
        assert any("no longer fits" in notice for notice in notices), "or the estimate is twice what is needed"


def test_a_build_is_cancelled_with_its_caller(owner: Database, model: EmbeddingModel) -> None:
    def interrupted(step: LoadProgress) -> None:
        if step.step != "rows":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_documents(owner, model, documents(10), progress=interrupted)
    assert [index["table_name"] for index in missing_indexes(owner)] in ([], [TABLE])
    load_documents(owner, model, [])
    assert missing_indexes(owner) == []


def test_two_loads_at_once(owner: Database, model: EmbeddingModel) -> None:
    def load(number: int) -> int | None:
        try:
            return load_documents(owner, model, documents(500, start=number * 500))
        except GuardError:
            return None

    before = schema_of(owner)
    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(load, range(4)))
    assert len(ids(owner)) == 500 * sum(each is not None for each in done)
    assert any(done)
    assert schema_of(owner) == before


def test_no_room_in_shared_memory(owner: Database, model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's /dev/shm is too small for a parallel build; then it is built without."""
    tried: list[int] = []
    run = index_build._run

    def cramped(connection: Any, commands: Any, granted: Resources) -> None:
        tried.append(granted.workers)
        if granted.workers:
            raise psycopg.errors.DiskFull("could not resize shared memory segment")
        run(connection, commands, granted)

    before = schema_of(owner)
    monkeypatch.setattr(index_build, "_run", cramped)
    load_documents(owner, model, documents(10))
    assert 0 in tried
    assert schema_of(owner) == before
