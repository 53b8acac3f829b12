"""Writing many documents at once: through the staging table, by any role, at the same time."""

from __future__ import annotations

import random
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psycopg
import pytest
from haystack import Document
from haystack.dataclasses import ByteStream

from database import document_rows
from database.connection import Database
from database.document_rows import BATCH, STAGED_FROM, DuplicateRowsError, Policy, write_rows, write_rows_async
from database.errors import DatabaseError, InvalidInputError

TABLE = "documents_all_minilm_l6_v2"
MANY = 2 * BATCH + 10


def document(number: int, content: str = "content", *, embedding: Any = None) -> Document:
    return Document(id=f"d{number:06}", content=f"{content} {number}", embedding=embedding, meta={"n": number})


def write(database: Database, documents: list[Document], *, policy: Policy = "fail") -> int:
    with database.connection() as connection:
        return write_rows(connection, TABLE, documents, dimension=384, policy=policy)


def contents(database: Database) -> dict[str, str]:
    return {row["id"]: row["content"] for row in database.read(f"SELECT id, content FROM {TABLE}")}  # noqa: S608


@pytest.fixture
def staged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The batches that went through the staging table, seen where their statement is made."""
    seen: list[str] = []
    merge = document_rows._merge

    def watched(*arguments: Any, staged: bool, **more: Any) -> Any:
        seen.append("staged" if staged else "given")
        return merge(*arguments, staged=staged, **more)

    monkeypatch.setattr(document_rows, "_merge", watched)
    return seen


@pytest.mark.parametrize("count", [STAGED_FROM - 1, STAGED_FROM, BATCH + 1])
def test_both_ways_write_the_same(database: Database, staged: list[str], count: int) -> None:
    blob = ByteStream(data=b"\x00\xff", meta={"page": 1}, mime_type="image/png")
    odd = [
        Document(
            id="\N{SNOWMAN} ' \" \\ \t\n", content="", embedding=np.zeros(384), meta={"a.b": [1.5, None, {"": "ü"}]}
        ),
        Document(id="blob", content=None, blob=blob, embedding=[0.25] * 384),
    ]
    assert write(database, [*odd, *(document(n) for n in range(count - 2))]) == count
    assert set(staged) == {"staged" if count >= STAGED_FROM else "given"}
    first, second = database.read(f"SELECT * FROM {TABLE} WHERE id NOT LIKE 'd%%' ORDER BY id DESC")  # noqa: S608
    assert (first["id"], first["content"], first["meta"]) == (odd[0].id, "", odd[0].meta)
    assert first["embedding"].to_list() == [0.0] * 384
    assert (second["content"], second["blob_data"], second["blob_meta"]) == (None, b"\x00\xff", {"page": 1})
    assert (second["blob_mime_type"], second["embedding"].to_list()) == ("image/png", [0.25] * 384)


def test_of_many_documents_the_policy_decides(database: Database) -> None:
    old, new = ([document(n, name) for n in range(MANY)] for name in ("old", "new"))
    assert write(database, old[::2]) == len(old[::2])
    with pytest.raises(DuplicateRowsError, match=r"has d000000, d000002, d000004 and \d+ more already"):
        write(database, new)
    assert contents(database) == {d.id: d.content for d in old[::2]}
    assert write(database, new, policy="skip") == len(old[1::2])
    assert contents(database)["d000002"] == "old 2"
    assert write(database, new, policy="overwrite") == MANY
    assert contents(database) == {d.id: d.content for d in new}


def test_of_many_with_one_id_the_policy_decides(database: Database) -> None:
    twice = [document(n, "first") for n in range(MANY)] + [document(7, "last")]
    with pytest.raises(DuplicateRowsError, match="d000007"):
        write(database, twice)
    assert contents(database) == {}
    assert write(database, twice, policy="skip") == MANY
    assert contents(database)["d000007"] == "first 7"
    assert write(database, twice, policy="overwrite") == MANY
    assert contents(database)["d000007"] == "last 7"


@pytest.mark.parametrize(
    "bad",
    [
        {"content": "nul \x00"},
        {"meta": {"n": float("nan")}},
        {"embedding": [float("nan")] * 384},
        {"embedding": [1.0]},
        {"id": "d" * 129},
    ],
    ids=str,
)
def test_one_that_cannot_be_kept_among_many_stops_all(database: Database, bad: dict[str, Any]) -> None:
    documents = [document(n) for n in range(MANY)]
    documents[BATCH + 5] = Document(**({"id": "d001005", "content": "bad"} | bad))
    with pytest.raises(InvalidInputError, match=r"d001005|dddd"):
        write(database, documents)
    assert contents(database) == {}


def test_twice_in_one_transaction(database: Database) -> None:
    with database.connection() as connection:
        for start in (0, MANY):
            write_rows(connection, TABLE, [document(n) for n in range(start, start + MANY)], dimension=384)
    assert len(contents(database)) == 2 * MANY


def test_nothing_of_it_stays_on_the_connection(database: Database) -> None:
    """Which another program may get next, behind a pooler."""
    for _ in range(2):
        with database.connection() as connection:
            write_rows(connection, TABLE, [document(n) for n in range(STAGED_FROM)], dimension=384)
            found = connection.execute("SELECT FROM pg_class WHERE relname = 'synapse_staging'").fetchall()
            assert len(found) == 1
    assert database.read("SELECT relname FROM pg_class WHERE relname = 'synapse_staging'") == []


async def test_asyncio(database: Database, staged: list[str]) -> None:
    async with database.connection_async() as connection:
        documents = [document(n, embedding=[float(n)] * 384) for n in range(MANY)]
        assert await write_rows_async(connection, TABLE, documents, dimension=384, policy="fail") == MANY
        with pytest.raises(DuplicateRowsError):
            await write_rows_async(connection, TABLE, documents, dimension=384, policy="fail")
    await database.close_async()
    assert set(staged) == {"staged"}
    assert len(contents(database)) == MANY


def test_a_role_without_temporary_tables(
    database: Database, owner_conninfo: str, staged: list[str], empty_conninfo: str
) -> None:
    """In a hardened database; ours is left as it is, as others test on it."""
    from database.schema import upgrade

    upgrade(empty_conninfo)
    name = psycopg.conninfo.conninfo_to_dict(empty_conninfo)["dbname"]
    with psycopg.connect(owner_conninfo, autocommit=True) as connection:
        connection.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
        connection.execute(f"GRANT CONNECT ON DATABASE {name} TO synapse_app")
    hardened = Database(psycopg.conninfo.make_conninfo(database.conninfo, dbname=name)).for_tenant("default")
    assert write(hardened, [document(n) for n in range(MANY)]) == MANY
    hardened.close()
    assert set(staged) == {"given"}


@pytest.mark.parametrize("policy", ["fail", "skip", "overwrite"])
def test_sixteen_writers_of_the_same_ids(database: Database, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """None waits for ever, none fails but for duplicates, and each batch is written whole."""
    monkeypatch.setattr(document_rows, "STAGED_FROM", 100)
    numbers = range(300)

    def one(writer: int) -> int:
        shuffled = random.Random(writer).sample(numbers, 200)
        try:
            return write(database, [document(n, f"writer {writer}") for n in shuffled], policy=policy)
        except DuplicateRowsError:
            return 0

    with ThreadPoolExecutor(16) as threads:
        written = list(threads.map(one, range(16)))
    found = contents(database)
    if policy == "overwrite":
        assert written == [200] * 16
    else:
        assert sum(written) == len(found)
    if policy == "fail":
        assert sorted(written) == [0] * 15 + [200]
    assert len(found) >= 200


def test_a_statement_that_takes_too_long_writes_nothing(database: Database) -> None:
    def write_slowly() -> None:
        with database.connection() as connection:
            write_rows(connection, TABLE, [document(n) for n in range(BATCH)], dimension=384)
            connection.execute("SET LOCAL statement_timeout = '20ms'")
            more = [document(n, embedding=[float(n), *[1.0] * 383]) for n in range(BATCH, 4 * BATCH)]
            write_rows(connection, TABLE, more, dimension=384)

    with pytest.raises(DatabaseError, match="statement timeout"):
        write_slowly()
    assert contents(database) == {}
    assert write(database, [document(n) for n in range(BATCH)]) == BATCH


def test_rows_are_made_batch_by_batch(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a call holds besides its documents does not grow with them."""
    monkeypatch.setattr(document_rows, "BATCH", 100)
    monkeypatch.setattr(document_rows, "STAGED_FROM", 100)

    def peak(batches: int) -> int:
        embedding = np.ones(384, dtype=np.float64)
        documents = [document(n, "x" * 1000, embedding=embedding) for n in range(batches * 100)]
        with database.connection() as connection:
            tracemalloc.start()
            write_rows(connection, TABLE, documents, dimension=384)
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            connection.rollback()
        return most

    peak(2)  # what is loaded and kept at first
    assert peak(8) < 1.5 * peak(2)
