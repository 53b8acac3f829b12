"""A table with bytea vectors as a source: every row, its metadata of all types, from any position."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from database.connection import Database
from database.errors import InvalidInputError, SchemaError
from migration.source import Record
from migration.sources.bytea import ByteaSource, Columns

CREATE = """
    CREATE SCHEMA bytea_source;
    CREATE TABLE bytea_source."My Items" (
        id bigint PRIMARY KEY, slug text NOT NULL UNIQUE, body text, packed bytea, extra jsonb,
        year smallint, price numeric, rating float8, live boolean, made timestamptz, day date, owner uuid, span interval,
        tags text[])
"""
INSERT = """
    INSERT INTO bytea_source."My Items"
    SELECT n, 'slug ' || (1000 - n), 'body ' || n, %(packed)b, jsonb_build_object('n', n, 'list', jsonb_build_array(1, 'a')),
           2000 + mod(n, 20), n + 0.5, n / 3.0::float8, mod(n, 2) = 0, '2024-02-29 12:00:00.5+00', '2024-02-29',
           md5(n::text)::uuid, '1 day', ARRAY['x']
      FROM generate_series(%(first)s::int, %(last)s) AS s (n)
"""
ITEMS = 'bytea_source."My Items"'
META = ("year", "price", "rating", "live", "made", "day", "owner")


class Table:
    """The table, and sources over it."""

    def __init__(self, connection: Any, owner: Database) -> None:
        self.connection, self.owner = connection, owner

    def run(self, statement: str, **parameters: Any) -> None:
        self.connection.execute(statement, parameters or None)

    def insert(self, first: int, last: int, vector: Any = (1.0, 2.0, 3.0)) -> None:
        packed = None if vector is None else vector if isinstance(vector, bytes) else np.array(vector, "<f4").tobytes()
        self.run(INSERT, packed=packed, first=first, last=last)

    def source(self, table: str = ITEMS, **changes: Any) -> ByteaSource:
        options = {key: changes.pop(key) for key in ("dimension", "big_endian", "distance") if key in changes}
        columns = {"embedding": "packed", "content": "body", "json": "extra", "meta": META, **changes}
        return ByteaSource(self.owner, table, Columns(**columns), **options)


@pytest.fixture
def table(owner: Database) -> Iterator[Table]:
    with owner.unpooled() as connection:
        connection.execute(CREATE)
        yield Table(connection, owner)
        connection.execute("DROP SCHEMA bytea_source CASCADE")


def all_records(source: ByteaSource) -> list[Record]:
    (part,) = source.parts()
    return list(source.records(part))


def test_a_row_is_a_record(table: Table) -> None:
    table.insert(1, 1)
    (record,) = all_records(table.source())
    assert (record.id, record.content, record.position, record.losses) == ("1", "body 1", "1", ())
    assert record.embedding is not None
    assert (record.embedding.tolist(), record.embedding.dtype) == ([1, 2, 3], np.float32)
    assert record.meta == {
        "year": 2001, "price": 1.5, "rating": 1 / 3, "live": False, "made": "2024-02-29T12:00:00.5+00:00",
        "day": "2024-02-29", "owner": "c4ca4238-a0b9-2382-0dcc-509a6f75849b", "n": 1, "list": [1, "a"],
    }  # fmt: skip


def test_the_part(table: Table) -> None:
    table.insert(1, 5)
    table.insert(6, 8, (1.0, 2.0))
    source = table.source(distance="l2")
    (part,) = source.parts()
    assert (part.name, part.count, part.dimension, part.distance, part.refusal) == ("My Items", 8, 3, "l2", None)
    assert part.facts["left_out_columns"] == ["slug", "span", "tags"]
    assert source.location.endswith("bytea_source.My Items.packed")


@pytest.mark.parametrize("id_", ["id", "slug"])
def test_pages_hold_every_row_once_and_go_on_anywhere(table: Table, id_: str) -> None:
    table.insert(1, 2500)
    source = table.source(id=id_)
    (part,) = source.parts()
    records = all_records(source)
    assert len({record.id for record in records}) == 2500
    for place in (0, 998, 999, 1000, 2498, 2499):
        after = [record.id for record in source.records(part, after=records[place].position)]
        assert after == [record.id for record in records[place + 1 :]]


def test_vectors_of_any_length_come_as_they_are(table: Table) -> None:
    table.insert(1, 3)
    for key, vector in enumerate((None, b"", b"abc", (1.0,), (float("nan"), 0.0, 0.0)), start=10):
        table.insert(key, key, vector)
    records = {record.id: record for record in all_records(table.source())}
    lengths = [None if (e := records[str(key)].embedding) is None else len(e) for key in range(10, 15)]
    assert lengths == [None, None, None, 1, 3]
    losses = {key: [loss.kind for loss in record.losses] for key, record in records.items() if record.losses}
    assert losses == {"11": ["unreadable"], "12": ["unreadable"]}
    assert records["12"].losses[0].original == b"abc"


def test_big_endian(table: Table) -> None:
    values = np.random.default_rng(0).standard_normal(64)
    table.insert(1, 3, values.astype(">f4").tobytes())
    refusal = table.source().parts()[0].refusal
    assert refusal
    assert "big-endian" in refusal
    source = table.source(big_endian=True)
    assert source.parts()[0].refusal is None
    assert (all_records(source)[0].embedding == values.astype(np.float32)).all()


def test_values_that_json_cannot_hold_keep_their_text(table: Table) -> None:
    table.insert(1, 1)
    table.run("UPDATE bytea_source.\"My Items\" SET price = 0.12345678901234567891, rating = 'NaN', made = 'infinity'")
    (record,) = all_records(table.source(meta=["price", "rating", "made", "span", "tags"]))
    assert record.meta["price"] == "0.12345678901234567891"
    assert np.isnan(record.meta["rating"])
    assert (record.meta["made"], record.meta["span"], record.meta["tags"]) == ("infinity", "1 day", "{x}")
    assert [loss.field for loss in record.losses] == ["meta.price", "meta.span", "meta.tags"]


def test_numbers_in_json_that_a_float_does_not_hold_are_named(table: Table) -> None:
    table.insert(1, 1)
    table.run("""UPDATE bytea_source."My Items" SET extra = '{"a": 0.1, "b": 0.12345678901234567891}'""")
    (record,) = all_records(table.source())
    assert (record.meta["a"], record.meta["b"]) == (0.1, "0.12345678901234567891")
    assert {loss.kind for loss in record.losses} == {"unsupported_value"}
    assert [loss.original[:4] for loss in record.losses] == ["0.12"]


def test_a_key_that_column_and_json_share_is_named(table: Table) -> None:
    table.insert(1, 1)
    table.run("""UPDATE bytea_source."My Items" SET extra = '{"year": 1066}'""")
    (record,) = all_records(table.source())
    assert record.meta["year"] == 2001
    assert [(loss.field, loss.original) for loss in record.losses] == [("meta.year", 1066)]


@pytest.mark.parametrize(("extra", "found"), [("[1]", {"extra": [1]}), ("null", {}), (None, {})])
def test_json_that_is_no_object(table: Table, extra: str | None, found: dict[str, Any]) -> None:
    table.insert(1, 1)
    table.run('UPDATE bytea_source."My Items" SET extra = %(extra)s::jsonb', extra=extra)
    assert all_records(table.source(meta=[]))[0].meta == found


def test_names_with_quotes_and_percent_signs(table: Table) -> None:
    table.run("""CREATE TABLE bytea_source."5% 'off" ("%s" text PRIMARY KEY, "%(b)s" bytea, "%" int)""")
    table.run("""INSERT INTO bytea_source."5% 'off" VALUES ('a%s', '\\x0000803f', 1), ('b', '\\x0000803f', 2)""")
    source = ByteaSource(table.owner, "bytea_source.5% 'off", Columns(embedding="%(b)s"))
    assert [(record.id, record.meta) for record in all_records(source)] == [("a%s", {"%": 1}), ("b", {"%": 2})]
    (part,) = source.parts()
    assert [record.id for record in source.records(part, after="a%s")] == ["b"]


def test_without_a_choice_all_columns_come_along(table: Table) -> None:
    table.insert(1, 1)
    source = table.source(meta=None, content=None, json=None)
    (record,) = all_records(source)
    assert record.content is None
    assert set(record.meta) == {"slug", "body", "extra", "span", "tags", *META}
    assert record.meta["extra"] == {"n": 1, "list": [1, "a"]}
    assert source.parts()[0].facts["left_out_columns"] == []


def test_the_fingerprint_knows_each_value_that_is_read(table: Table) -> None:
    table.insert(1, 20)
    source = table.source()
    before = source.fingerprint()
    assert before == source.fingerprint() == table.source().fingerprint()
    for change in ("packed = packed || '1'", "body = 'other'", "year = 1999", "extra = NULL"):
        table.run("BEGIN")
        table.connection.execute(f'UPDATE bytea_source."My Items" SET {change} WHERE id = 7')  # noqa: S608
        table.run("COMMIT")
        assert source.fingerprint() != before, change
        before = source.fingerprint()
    table.run("""UPDATE bytea_source."My Items" SET slug = 'not read' WHERE id = 7""")
    assert source.fingerprint() == before


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"table": "nothing"}, SchemaError),
        ({"embedding": "body"}, InvalidInputError),
        ({"embedding": "nothing"}, InvalidInputError),
        ({"content": "nothing"}, InvalidInputError),
        ({"meta": ["nothing"]}, InvalidInputError),
        ({"id": "body"}, InvalidInputError),
    ],
)
def test_what_is_not_there(table: Table, changes: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        table.source(**changes)


def test_a_table_without_rows(table: Table) -> None:
    source = table.source()
    (part,) = source.parts()
    assert (part.count, part.dimension, part.refusal, all_records(source)) == (0, None, None, [])
