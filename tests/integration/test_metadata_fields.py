"""Declared fields: an index that filters really use, estimates near the truth, and nothing left of what was interrupted."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from haystack import Document
from haystack.utils import Secret

from database import models
from database.connection import Database
from database.document_store import SynapseDocumentStore
from database.errors import DatabaseError, GuardError, InvalidInputError
from database.filters import condition
from database.metadata_fields import (
    declare_field,
    declared_fields,
    drop_field,
    forget_table,
    index_name_for,
    list_fields,
)
from database.models import EmbeddingModel

TABLE = "declared"
ROWS = 4000


def meta(number: int) -> dict[str, Any]:
    day = f"20{number % 25:02}-{number % 12 + 1:02}-{number % 28 + 1:02}"
    return {
        "year": 2000 + number % 25,
        "lang": ["en", "de", "fr", "long " * 2000][number % 4],
        "draft": number % 100 == 0,
        "day": day if number % 2 else f"{day}T12:00:00+02:00",
        "author": {"name": f"name {number % 500}"},
        "a.b": number % 1000,
        "mixed": ["n/a", number, None, [number]][number % 4],
    }


@pytest.fixture(scope="module")
def store(owner_conninfo: str) -> Iterator[SynapseDocumentStore]:
    store = SynapseDocumentStore(
        connection_string=Secret.from_token(owner_conninfo), table_name=TABLE, embedding_dimension=3
    )
    store.create_table()
    store.delete_all_documents()
    with psycopg.connect(owner_conninfo) as connection:
        connection.cursor().executemany(
            f"INSERT INTO {TABLE} (id, meta) VALUES (%s, %s)",  # noqa: S608
            [(str(number), json.dumps(meta(number))) for number in range(ROWS)],
        )
    yield store
    store.delete_table()


@pytest.fixture(autouse=True)
def _nothing_declared(owner: Database, store: SynapseDocumentStore) -> Iterator[None]:
    yield
    for field in declared_fields(owner, TABLE):
        drop_field(owner, TABLE, field.name)


def leaf(field: str, operator: str, value: Any) -> dict[str, Any]:
    return {"field": field, "operator": operator, "value": value}


def plan(owner: Database, filters: dict[str, Any], *, settings: dict[str, str] | None = None) -> dict[str, Any]:
    where, params = condition(filters)
    statement = psycopg.sql.SQL("EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) SELECT id FROM declared WHERE {}").format(
        where
    )
    found: dict[str, Any] = owner.read(statement, params, settings=settings, binary=False)[0]["QUERY PLAN"][0]["Plan"]
    return found


CASES = [
    ("number", "year", leaf("meta.year", "==", 2020)),
    ("number", "year", leaf("meta.year", ">=", 2022)),
    ("number", "year", leaf("meta.year", "in", [2001, 2002, 2003.0])),
    ("text", "lang", leaf("meta.lang", "==", "en")),
    ("text", "lang", leaf("meta.lang", "in", ["fr", "xx"])),
    ("boolean", "draft", leaf("meta.draft", "==", True)),
    ("date", "day", leaf("meta.day", ">=", "2021-01-01")),
    ("date", "day", leaf("meta.day", "<", "2003-06-01T00:00:00Z")),
    ("date", "day", leaf("meta.day", "==", "2003-04-04")),
    ("text", "author.name", leaf("meta.author.name", "==", "name 7")),
    ("number", "`a.b`", leaf("meta.`a.b`", "<", 50)),
    ("number", "mixed", leaf("meta.mixed", "<", 500)),
]


def test_a_declared_field_serves_filters_and_is_known_to_the_planner(
    owner: Database, store: SynapseDocumentStore
) -> None:
    wanted = {name: type_ for type_, name, _ in CASES}
    before = {str(filter_): store.count_documents_by_filter(filter_) for *_, filter_ in CASES}
    for name, type_ in wanted.items():
        declare_field(owner, TABLE, name, type_)
    for type_, name, filter_ in CASES:
        found = plan(owner, filter_, settings={"enable_seqscan": "off"})
        assert index_name_for(TABLE, name, type_) in json.dumps(found), filter_
        actual = before[str(filter_)]
        assert store.count_documents_by_filter(filter_) == found["Actual Rows"] == actual
        assert abs(found["Plan Rows"] - actual) <= max(0.15 * actual, 25), filter_
    assert plan(owner, leaf("meta.author.name", "==", "name 7"))["Node Type"] != "Seq Scan"


def test_declaring_again_does_nothing_and_another_type_replaces(owner: Database) -> None:
    first = declare_field(owner, TABLE, "meta.year", "number")
    assert declare_field(owner, TABLE, "year", "number") == first
    second = declare_field(owner, TABLE, "year", "text")
    assert [field.name for field in declared_fields(owner, TABLE)] == ["year"]
    assert second.index_name != first.index_name
    indexes = owner.read(
        "SELECT to_regclass(%(a)s) AS a, to_regclass(%(b)s) AS b",
        {"a": first.index_name, "b": second.index_name},
        binary=False,
    )
    assert indexes == [{"a": None, "b": second.index_name}]


def test_an_index_that_an_interrupted_build_left_is_replaced(owner: Database, owner_conninfo: str) -> None:
    name = index_name_for(TABLE, "year", "number")
    with psycopg.connect(owner_conninfo, autocommit=True) as connection:
        connection.execute(f"CREATE INDEX {name} ON {TABLE} ((synapse_number(meta -> 'wrong')))")
        connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass", (name,))
        assert declare_field(owner, TABLE, "year", "number").indexed
        definition = connection.execute("SELECT pg_get_indexdef(%s::regclass)", (name,)).fetchone()
    assert definition is not None
    assert "'year'" in definition[0]


def test_a_build_that_is_cancelled_leaves_nothing(owner: Database, owner_conninfo: str) -> None:
    """An open transaction holds it up; it is cancelled then, as by Ctrl-C."""
    phases: list[str] = []
    errors: list[BaseException] = []

    def declare() -> None:
        try:
            declare_field(owner, TABLE, "year", "number", progress=lambda phase, done, of: phases.append(phase))
        except DatabaseError as exc:
            errors.append(exc)

    with psycopg.connect(owner_conninfo) as holding, psycopg.connect(owner_conninfo, autocommit=True) as other:
        holding.execute(f"INSERT INTO {TABLE} (id) VALUES ('open')")  # noqa: S608
        builder = threading.Thread(target=declare)
        builder.start()
        while not phases:
            pass
        with pytest.raises(GuardError, match="is being declared"):
            declare_field(owner, TABLE, "lang", "text")
        other.execute("SELECT pg_cancel_backend(pid) FROM pg_stat_progress_create_index")
        holding.rollback()
        builder.join()
        assert errors
        assert other.execute("SELECT to_regclass(%s)", (index_name_for(TABLE, "year", "number"),)).fetchone() == (None,)
    assert declared_fields(owner, TABLE) == []
    assert declare_field(owner, TABLE, "year", "number").indexed


@pytest.mark.parametrize(
    "name", ["it's", 'say "x"', "%s", "'; DROP TABLE declared; --", "ключ", "n" * 300, "with space", "{}", "a\\b", "`"]
)
def test_any_name_can_be_declared(owner: Database, store: SynapseDocumentStore, name: str) -> None:
    field = declare_field(owner, TABLE, name, "text")
    assert len(field.index_name.encode()) <= 63
    store.write_documents([Document(id="hostile", meta={name: "x"})])
    found = plan(owner, leaf(f"meta.{name}", "==", "x"), settings={"enable_seqscan": "off"})
    assert field.index_name in json.dumps(found)
    assert found["Actual Rows"] == 1
    store.delete_documents(["hostile"])


def test_index_names_fit_whatever_the_table_is_called() -> None:
    for table in ("t" * 48, "ключ" * 12):
        assert len(index_name_for(table, "x", "text").encode()) <= 63


def test_what_cannot_be_declared(owner: Database) -> None:
    for name, type_, part in (
        ("", "text", "must be text"),
        ("a\x00", "text", "must be text"),
        (".".join("abcdefghi"), "text", "at most"),
        ("year", "integer", "number, text, boolean, date"),
    ):
        with pytest.raises(InvalidInputError, match=part):
            declare_field(owner, TABLE, name, type_)
    with pytest.raises(InvalidInputError, match="not there"):
        declare_field(owner, "elsewhere", "year", "number")
    with pytest.raises(InvalidInputError, match="these are: none"):
        drop_field(owner, TABLE, "year")


def test_every_field_is_listed_with_its_types(owner: Database, store: SynapseDocumentStore) -> None:
    declare_field(owner, TABLE, "year", "number")
    declare_field(owner, TABLE, "never", "text")
    found = {field.name: field for field in list_fields(owner, TABLE)}
    assert (found["year"].documents, found["year"].types, found["year"].declared) == (ROWS, {"number": ROWS}, "number")
    assert found["year"].indexed
    assert found["author"].types == {"mapping": ROWS}
    assert found["author.name"].types == {"text": ROWS}
    assert found["`a.b`"].types == {"number": ROWS}
    assert found["day"].types == {"date": ROWS}
    assert found["mixed"].types == dict.fromkeys(("text", "number", "null", "list"), ROWS // 4)
    assert (found["never"].documents, found["never"].declared) == (0, "text")
    sample = store.sample_metadata_fields()
    assert sample.keys() <= found.keys()
    assert sample["mixed"] == {"string", "number", "null", "array"}
    assert store.has_metadata_field("author.name")
    assert not store.has_metadata_field("author.nmae")


def test_a_new_model_has_the_declared_fields_of_the_active_one(database: Database, owner: Database) -> None:
    active = models.active_model(database)
    declare_field(owner, active.table_name, "year", "number")
    try:
        added = EmbeddingModel.named("other-model", dimension=3)
        models.add_model(owner, added)
        assert [(field.name, field.type, field.indexed) for field in declared_fields(database, added.table_name)] == [
            ("year", "number", True)
        ]
        models.drop_model(owner, added.name)
        assert declared_fields(database, added.table_name) == []
    finally:
        drop_field(owner, active.table_name, "year")
        with owner.connection() as connection:
            forget_table(connection, active.table_name)
