"""The index against exact search, on tables of the session's server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from haystack import Document
from haystack.utils import Secret
from typer.testing import CliRunner

import synapse
from components.metadata_filter import parse_filter
from database.certificates import newest
from database.connection import Database
from database.document_store import SynapseDocumentStore
from database.index_recall import SampledTable, answers, floor_ms
from tests.acceptance.program import Program

ROWS = 2_000
ONE = {"field": "id", "operator": "==", "value": "d7"}


@pytest.fixture(scope="module")
def store(owner_conninfo: str) -> Iterator[SynapseDocumentStore]:
    """Documents in no order at all, in many dimensions: what an index finds hardest."""
    made = SynapseDocumentStore(
        connection_string=Secret.from_token(owner_conninfo),
        table_name="recall_documents",
        embedding_dimension=32,
        hnsw_index_creation_kwargs={"m": 4, "ef_construction": 8},
    )
    made.create_table()
    vectors = np.random.default_rng(0).normal(size=(ROWS, 32)).tolist()
    odd = [
        Document(id="zero", content="z", embedding=[0.0] * 32, meta={"half": True}),
        Document(id="none", content="n"),
    ]
    documents = [
        Document(id=f"d{n}", content=f"text {n}", embedding=vector, meta={"half": n % 2 == 0, "shelf": n % 10})
        for n, vector in enumerate(vectors)
    ]
    made.write_documents([*documents, *odd])
    yield made
    made.delete_table()


def test_recall_grows_with_ef_search(store: SynapseDocumentStore) -> None:
    vectors = SampledTable(store).vectors(30)
    half = parse_filter("half == true")
    found = answers(store, vectors, filters=[(None, [10, 400]), (half, [10])], top_k=10, seconds=60)
    means = {key: sum(one.recall for one in some) / len(some) for key, some in found.items()}
    assert {len(some) for some in found.values()} == {30}
    assert means[0, 10] < 0.95
    assert means[0, 400] > means[0, 10] + 0.02
    assert all(one.returned == one.wanted == 10 for some in found.values() for one in some)
    assert all(one.ms > 0 < one.exact_ms for some in found.values() for one in some)
    assert 0 < floor_ms(store, vectors[:5]) < 1000


def test_the_sample_is_of_documents_that_an_index_holds(store: SynapseDocumentStore) -> None:
    table = SampledTable(store)
    assert table.rows == ROWS + 2
    vectors = table.vectors(ROWS * 2)
    assert len(vectors) == ROWS
    assert all(any(vector) for vector in vectors)
    assert table.vectors(5) == table.vectors(5)
    assert len(table.metadata(ROWS * 2)) == ROWS + 1
    assert table.share(parse_filter("shelf == 3") or {}) == pytest.approx(0.1, abs=0.001)


def test_few_matches_and_little_time(store: SynapseDocumentStore) -> None:
    ticks = iter(range(1000))
    found = answers(
        store,
        SampledTable(store).vectors(20),
        filters=[(ONE, [10]), (parse_filter("shelf == 77"), [10])],
        top_k=10,
        seconds=3.5,
        clock=lambda: float(next(ticks)),
    )
    assert [len(some) for some in found.values()] == [4, 4]  # those that were begun in time
    assert {answer.recall for some in found.values() for answer in some} == {1}
    assert {answer.wanted for answer in found[0, 10]} == {1}
    assert {answer.wanted for answer in found[1, 10]} == {0}


def invoked(program: Program, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> tuple[int, str]:
    """A command in this process, which has loaded everything already."""
    for name, value in program.full_environment().items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(synapse.app, [str(argument) for argument in arguments])
    return done.exit_code, done.stdout


def filled(connection: psycopg.Connection[Any], *, count: int) -> None:
    cursor = connection.cursor()
    generator = np.random.default_rng(1)
    cursor.executemany(
        "INSERT INTO documents_all_minilm_l6_v2 (id, content, embedding, meta) VALUES (%s, 'text', %s::vector, %s)",
        [
            (f"d{n}", json.dumps(generator.normal(size=384).tolist()), json.dumps({"lang": "en" if n % 2 else "de"}))
            for n in range(count)
        ],
    )


def test_the_command(database: Database, owner_conninfo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program(home=tmp_path, environment={"DATABASE_URL": database.conninfo})
    empty = invoked(program, monkeypatch, "recall")
    assert empty == (
        0,
        "Table documents_all_minilm_l6_v2 holds no document with an embedding: there is nothing to measure.\n",
    )
    assert invoked(program, monkeypatch, "recall", "--at-least", "0.9")[0] == 5

    with psycopg.connect(owner_conninfo, autocommit=True) as connection:
        filled(connection, count=60)
    picture = tmp_path / "recall.png"
    code, printed = invoked(program, monkeypatch, "recall", "--sample", 12, "--plot", picture, "--json")
    assert code == 0
    certificate = json.loads(printed)
    kept = newest(database, "documents_all_minilm_l6_v2")
    assert kept is not None
    assert kept.certificate == certificate
    assert (kept.rows, kept.ef_search) == (60, certificate["configured"])
    measured = [
        one for group in certificate["groups"] for one in group["settings"] if one["ef_search"] == kept.ef_search
    ]
    assert kept.recall == min(one["recall"] for one in measured)
    assert certificate["rows"] == 60
    assert certificate["queries"] == 12
    assert [group["filter"] for group in certificate["groups"]] == ["", 'lang == "de"']
    assert certificate["groups"][1]["share"] == 0.5
    tried = [[one["ef_search"] for one in group["settings"]] for group in certificate["groups"]]
    assert tried == [[10, 20, 40, 100, 200, 400, 1000], [10, 100, 200, 1000]]
    assert (certificate["recommended"], certificate["likely"], certificate["needed"]) == (None, 10, 368)
    assert picture.read_bytes().startswith(b"\x89PNG")

    code, printed = invoked(
        program, monkeypatch, "recall", "--sample", 3, "--filter", 'lang == "en"', "--filter", "lang == 3"
    )
    assert code == 0
    assert 'lang == "en", 50.0% of the rows' in printed
    assert "lang == 3, 0.0% of the rows" in printed
    assert "* The configured ef_search 200 returns 100.00% of the nearest documents or more." in printed
    assert "3 queries do not prove it; it takes 368 even if all are perfect" in printed


def test_below_the_threshold(
    database: Database, owner_conninfo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With as few candidates as this, the index of documents in no order at all loses many."""
    program = Program(home=tmp_path, environment={"DATABASE_URL": database.conninfo, "HNSW_EF_SEARCH": "10"})
    with psycopg.connect(owner_conninfo, autocommit=True) as connection:
        filled(connection, count=1000)
        connection.execute("ANALYZE documents_all_minilm_l6_v2")
    arguments = ("recall", "--sample", 20, "--filter", "missing == 1", "--json")
    code, printed = invoked(program, monkeypatch, *arguments, "--at-least", 0.999)
    assert code == 5
    assert min(one["recall"] for one in json.loads(printed)["groups"][0]["settings"]) < 0.9
    assert invoked(program, monkeypatch, *arguments, "--at-least", 0.05)[0] == 0


def test_what_the_command_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program(home=tmp_path, environment={})
    (tmp_path / "empty.txt").write_text("\n")
    for arguments, message in (
        (("--queries", tmp_path / "empty.txt"), "but it is empty"),
        (("--plot", "x.jpg"), "takes the name of a .png file"),
        (("--filter", "year >="), "filter"),
    ):
        code, printed = invoked(program, monkeypatch, "recall", *arguments, "--json")
        assert code == 2
        assert message in json.loads(printed)["error"]["message"]
    assert invoked(program, monkeypatch, "recall", "--queries", tmp_path / "gone.txt", "--json")[0] == 1
