"""A bytea column becomes a vector column: on tables of all kinds, beside writers, through kills, and back."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import typer
from psycopg.sql import SQL, Identifier
from typer.testing import CliRunner

from benchmarks.bytea_backfill import measure
from commands import migrate_bytea
from database.connection import Database
from database.errors import GuardError, InvalidInputError, SchemaError
from migration import bytea_changes
from migration.bytea import inspect, migrate, revert
from migration.bytea_index import Index
from migration.bytea_options import Options, Outcome
from migration.progress import Progress
from tests.conftest import PROJECT

DIMENSION = 8
SMALL = Index(m=4, ef_construction=16)


class Schema:
    """A schema of its own, with a connection of the owner."""

    def __init__(self, connection: psycopg.Connection[Any], name: str) -> None:
        self.connection, self.name = connection, name

    def run(self, statement: str, *parameters: Any) -> list[Any]:
        several = ";" in statement
        cursor = self.connection.execute(statement, parameters or None, binary=not several)
        return cursor.fetchall() if cursor.description else []

    def fill(self, count: int = 200, *, dtype: str = "<f4", dimension: int = DIMENSION) -> np.ndarray:
        """Table `items (id, title, embedding)`."""
        vectors = np.random.default_rng(0).standard_normal((count, dimension)).astype(np.float32)
        self.run("CREATE TABLE items (id bigint PRIMARY KEY, title text DEFAULT 'title', embedding bytea)")
        with self.connection.cursor() as cursor, cursor.copy("COPY items (id, embedding) FROM STDIN") as copy:
            for key, vector in enumerate(vectors):
                copy.write_row((key, vector.astype(dtype).tobytes()))
        return vectors

    def options(self, **changes: Any) -> Options:
        return Options(**{"table": f"{self.name}.items", "column": "embedding", "index": SMALL, **changes})

    def conninfo(self, owner: Database) -> str:
        """For other connections that find the tables by their names."""
        return psycopg.conninfo.make_conninfo(owner.conninfo, options=f"-c search_path={self.name},public")

    def vectors(self) -> dict[Any, list[float] | None]:
        return dict(self.run("SELECT id, embedding_vector::real[] FROM items ORDER BY 1"))

    def made(self) -> list[Any]:
        """All that stands in the schema: tables, columns, indexes, triggers, functions, constraints."""
        return self.run(
            "SELECT 'class', relname::text, relkind::text FROM pg_class WHERE relnamespace = %(s)s::regnamespace "
            "AND relkind <> 't' UNION ALL "
            "SELECT 'column', attrelid::regclass::text, attname::text FROM pg_attribute JOIN pg_class c ON c.oid = attrelid "
            "WHERE c.relnamespace = %(s)s::regnamespace AND attnum > 0 AND NOT attisdropped UNION ALL "
            "SELECT 'trigger', tgrelid::regclass::text, tgname::text FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid "
            "WHERE c.relnamespace = %(s)s::regnamespace UNION ALL "
            "SELECT 'function', proname::text, '' FROM pg_proc WHERE pronamespace = %(s)s::regnamespace UNION ALL "
            "SELECT 'constraint', conrelid::regclass::text, conname::text FROM pg_constraint "
            "WHERE connamespace = %(s)s::regnamespace ORDER BY 1, 2, 3".replace("%(s)s", f"'{self.name}'")
        )


@pytest.fixture
def app(owner_conninfo: str) -> Iterator[Schema]:
    name = f"app_{os.urandom(4).hex()}"
    with psycopg.connect(owner_conninfo, autocommit=True) as connection:
        connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(name)))
        connection.execute("SELECT set_config('search_path', %s, false)", [f"{name}, public"])
        yield Schema(connection, name)
        connection.execute(SQL("DROP SCHEMA {} CASCADE").format(Identifier(name)))


def assert_closed(outcome: Outcome) -> None:
    assert outcome.receipt.closed, outcome.receipt.open()


def packed(*numbers: float, dtype: str = "<f4") -> bytes:
    return np.array(numbers, dtype=dtype).tobytes()


# The whole way


def test_every_row_gets_its_vector(app: Schema, owner: Database) -> None:
    vectors = app.fill(1500)
    app.run("UPDATE items SET embedding = NULL WHERE id = 7")
    outcome = migrate(owner, app.options(batch=100))
    assert_closed(outcome)
    part = outcome.receipt.parts[0]
    assert (part.records, part.copied, outcome.filled) == (1499, 1499, 1499)
    assert part.source_checksum == part.target_checksum
    assert set(part.checks) == {"index", "canary"}
    assert part.checks["canary"]["queries"] == 50
    found = app.vectors()
    assert found.pop(7) is None
    assert all((np.float32(value) == vectors[key]).all() for key, value in found.items())  # type: ignore[arg-type]


def test_running_it_again_changes_nothing(app: Schema, owner: Database) -> None:
    app.fill()
    first = migrate(owner, app.options())
    before = app.made(), app.run("SELECT id, xmin::text FROM items ORDER BY 1")
    second = migrate(owner, app.options())
    assert (app.made(), app.run("SELECT id, xmin::text FROM items ORDER BY 1")) == before
    assert second.filled == 0
    receipts = [{**outcome.receipt.to_dict(), "run": None} for outcome in (first, second)]
    assert receipts[0] == receipts[1]


def test_a_dry_run_changes_nothing(app: Schema, owner: Database) -> None:
    app.fill()
    before = app.made()
    outcome = inspect(owner, app.options())
    assert app.made() == before
    assert (outcome.receipt.kind, outcome.receipt.parts[0].copied, outcome.refusals) == ("dry run", 200, [])


def test_finish_and_what_it_enforces(app: Schema, owner: Database) -> None:
    app.fill()
    assert not migrate(owner, app.options()).finished
    assert migrate(owner, app.options(finish=True, keep_trigger=False)).finished
    app.run("INSERT INTO items VALUES (1000, 't', %s, %s::real[]::vector)", packed(*[1] * 8), [1.0] * 8)
    with pytest.raises(psycopg.errors.CheckViolation):
        app.run("INSERT INTO items VALUES (1001, 't', %s)", packed(*[1] * 8))
    for finish in (False, True, False):
        assert migrate(owner, app.options(finish=finish)).finished
    assert not app.run("SELECT FROM pg_trigger WHERE tgrelid = 'items'::regclass")


def test_finish_with_the_trigger_kept(app: Schema, owner: Database) -> None:
    app.fill()
    assert migrate(owner, app.options(finish=True)).finished
    app.run("INSERT INTO items VALUES (1000, 't', %s)", packed(*[1] * 8))
    assert app.vectors()[1000] == [1.0] * 8
    with pytest.raises(psycopg.errors.CheckViolation):
        app.run("INSERT INTO items VALUES (1001, 't', %s)", b"short")


@pytest.mark.parametrize("index", [Index(method="ivfflat", lists=2), Index(distance="l2"), Index(distance="ip"), None])
def test_other_indexes(app: Schema, owner: Database, index: Index | None) -> None:
    app.fill()
    outcome = migrate(owner, app.options(index=index))
    assert_closed(outcome)
    found = [name for kind, name, _ in app.made() if kind == "class" and name.startswith("items_embedding")]
    assert found == ([index.name_for(_table(owner, app))] if index else [])


def test_many_dimensions_in_16_bits(app: Schema, owner: Database) -> None:
    vectors = app.fill(60, dimension=2500)
    with pytest.raises(InvalidInputError, match="at most 2,000"):
        migrate(owner, app.options())
    assert_closed(migrate(owner, app.options(index=Index(halfvec=True))))
    assert app.vectors()[0] == vectors[0].tolist()


# Tables of all kinds

KEYS = {
    "composite": ("a text, b int, PRIMARY KEY (b, a)", "'k' || n, n % 7"),
    "uuid": ("k uuid PRIMARY KEY", "md5(n::text)::uuid"),
    "text": ("k text PRIMARY KEY", "chr(32 + n) || E'\\n''\"%s' || chr(8000 + n)"),
    "text in C": ('k text COLLATE "C" PRIMARY KEY', "chr(8000 + n) || repeat('x', n)"),
    "char": ("k char(9) PRIMARY KEY", "'a ' || n"),
    "time": ("k timestamptz PRIMARY KEY", "to_timestamp(n * 0.000001)"),
    "double": ("k float8 PRIMARY KEY", "1.0::float8 / n"),
    "bytea": ("k bytea PRIMARY KEY", "sha256(n::text::bytea)"),
    "array": ("k int[] PRIMARY KEY", "ARRAY[n % 3, n]"),
    "negative": ("k int PRIMARY KEY", "50 - n"),
    "unique": ("k int NOT NULL UNIQUE", "n"),
    "enum": ('k "Kind\'s", n int, PRIMARY KEY (k, n)', "(CASE WHEN n % 2 = 0 THEN 'a' ELSE 'b' END)::\"Kind's\", n"),
    "domain": ("k code PRIMARY KEY", "n::text"),
}
"""Columns of a key, and ninety values for them."""


@pytest.mark.parametrize("name", KEYS)
def test_keys_of_many_types(app: Schema, owner: Database, name: str) -> None:
    columns, values = KEYS[name]
    app.run("CREATE TYPE \"Kind's\" AS ENUM ('b', 'a'); CREATE DOMAIN code AS text CHECK (value <> '')")
    app.run(f'CREATE TABLE "We""ird Items" ({columns}, "My Bytes" bytea)')
    insert = SQL(
        """INSERT INTO "We""ird Items" SELECT {}, decode(repeat(lpad(to_hex(n), 2, '0') || '00803f', 4), 'hex')
             FROM generate_series(1, 90) AS s (n)"""
    )
    app.connection.execute(insert.format(SQL(values)))
    options = app.options(table=f'{app.name}."We""ird Items"', column="My Bytes", batch=20, into="Vec tor")
    assert_closed(migrate(owner, options))
    assert app.run('SELECT count(DISTINCT "Vec tor") FROM "We""ird Items"') == [(90,)]
    assert revert(owner, options, on_wait=print)
    assert_closed(migrate(owner, options))


def test_names_with_percent_signs(app: Schema, owner: Database) -> None:
    app.run("""CREATE DOMAIN "50%" AS int; CREATE TABLE "%s" ("%(id)s" "50%" PRIMARY KEY, "100%" bytea)""")
    app.connection.execute(
        """INSERT INTO "%s" SELECT n, decode(repeat(lpad(to_hex(n), 2, '0') || '00803f', 4), 'hex')
             FROM generate_series(1, 90) AS s (n)"""
    )
    options = app.options(table=f'{app.name}."%s"', column="100%", batch=20, finish=True, index=Index(halfvec=True))
    assert_closed(migrate(owner, options))
    assert app.run("""SELECT count(DISTINCT "100%_vector") FROM "%s\"""") == [(90,)]
    assert revert(owner, options, on_wait=print)


def test_a_descending_key(app: Schema, owner: Database) -> None:
    app.fill(90)
    app.run("ALTER TABLE items DROP CONSTRAINT items_pkey; CREATE UNIQUE INDEX ON items (id DESC)")
    outcome = migrate(owner, app.options(batch=20))
    assert_closed(outcome)
    assert outcome.filled == 90


def test_names_are_found_as_sql_writes_them_and_without_quotes(app: Schema, owner: Database) -> None:
    app.run('CREATE TABLE "My Items" (id int PRIMARY KEY, e bytea)')
    app.run('INSERT INTO "My Items" VALUES (1, %s)', packed(1, 2))
    for written in (f'{app.name}."My Items"', f"{app.name}.My Items"):
        assert inspect(owner, app.options(table=written, column="e")).receipt.parts[0].records == 1


REFUSED = {
    "nothing": ("SELECT 1", "none of that name"),
    "view": ("CREATE VIEW items AS SELECT 1 AS id, ''::bytea AS embedding", "is a view"),
    "materialized": (
        "CREATE MATERIALIZED VIEW items AS SELECT 1 AS id, ''::bytea AS embedding",
        "is a materialized view",
    ),
    "foreign": (
        "CREATE FOREIGN DATA WRAPPER fake_{name}; CREATE SERVER fake_{name} FOREIGN DATA WRAPPER fake_{name};"
        "CREATE FOREIGN TABLE items (id int, embedding bytea) SERVER fake_{name}",
        "is a foreign table",
    ),
    "partitioned": (
        "CREATE TABLE items (id int PRIMARY KEY, embedding bytea) PARTITION BY HASH (id)",
        "partitioned table",
    ),
    "partition": (
        "CREATE TABLE p (id int PRIMARY KEY, embedding bytea) PARTITION BY HASH (id);"
        "CREATE TABLE items PARTITION OF p FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
        "is a partition",
    ),
    "parent": (
        "CREATE TABLE items (id int PRIMARY KEY, embedding bytea); CREATE TABLE c () INHERITS (items)",
        "from which others inherit",
    ),
    "no key": ("CREATE TABLE items (id int, embedding bytea)", "must have a primary key"),
    "key with NULLs": ("CREATE TABLE items (id int UNIQUE, embedding bytea)", "must have a primary key"),
    "deferred key": (
        "CREATE TABLE items (id int NOT NULL UNIQUE DEFERRABLE, embedding bytea)",
        "must have a primary key",
    ),
    "no column": ('CREATE TABLE items (id int PRIMARY KEY, "Embedding" bytea)', "but it has id, Embedding"),
    "text": ("CREATE TABLE items (id int PRIMARY KEY, embedding text)", "must be of type bytea, but is text"),
    "generated": (
        "CREATE TABLE items (id int PRIMARY KEY, a bytea, embedding bytea GENERATED ALWAYS AS (a) STORED)",
        "is generated",
    ),
    "no rows": ("CREATE TABLE items (id int PRIMARY KEY, embedding bytea)", "no row has any"),
    "no floats": (
        "CREATE TABLE items (id int PRIMARY KEY, embedding bytea); INSERT INTO items VALUES (1, 'abc')",
        "no multiples of 4",
    ),
    "name taken": (
        "CREATE TABLE items (id int PRIMARY KEY, embedding bytea, embedding_vector vector(2));"
        "INSERT INTO items VALUES (1, '12345678')",
        "not of this program",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_migrated_is_refused_with_a_sentence(app: Schema, owner: Database, name: str) -> None:
    create, said = REFUSED[name]
    app.run(create.replace("{name}", app.name))
    before = app.made()
    with pytest.raises((InvalidInputError, SchemaError, GuardError), match=said):
        migrate(owner, app.options())
    assert app.made() == before
    if name == "foreign":
        app.run(f"DROP FOREIGN DATA WRAPPER fake_{app.name} CASCADE")


def test_who_does_not_own_the_table_is_refused(app: Schema, owner_conninfo: str) -> None:
    app.fill(3)
    app.run(f"GRANT USAGE ON SCHEMA {app.name} TO synapse_app; GRANT SELECT ON items TO synapse_app")
    stranger = Database(psycopg.conninfo.make_conninfo(owner_conninfo, options="-c role=synapse_app"))
    with pytest.raises(GuardError, match="belongs to"):
        migrate(stranger, app.options())


def test_forced_row_level_security_that_hides_rows_is_refused(app: Schema, owner_conninfo: str) -> None:
    app.fill(3)
    app.run("ALTER TABLE items FORCE ROW LEVEL SECURITY, ENABLE ROW LEVEL SECURITY, OWNER TO synapse_app")
    app.run(f"GRANT ALL ON SCHEMA {app.name} TO synapse_app")
    hidden = Database(psycopg.conninfo.make_conninfo(owner_conninfo, options="-c role=synapse_app"))
    with pytest.raises(GuardError, match="Row-level security"):
        migrate(hidden, app.options())


def test_an_owner_that_is_no_superuser(app: Schema, owner_conninfo: str) -> None:
    app.fill(50)
    app.run(f"ALTER TABLE items OWNER TO synapse_app; GRANT ALL ON SCHEMA {app.name} TO synapse_app")
    plain = Database(psycopg.conninfo.make_conninfo(owner_conninfo, options="-c role=synapse_app"))
    assert_closed(migrate(plain, app.options(finish=True)))
    assert revert(plain, app.options(), on_wait=print)


# Values that do not fit


def fill_with_unfit(app: Schema) -> dict[str, list[tuple[int, bytes]]]:
    app.fill(20)
    unfit = {
        "dimension": [(100, b""), (101, b"abc"), (102, packed(1, 2))],
        "not_finite_vector": [(103, packed(float("nan"), *[1] * 7)), (104, packed(*[1] * 7, float("-inf")))],
        "zero_vector": [(105, packed(*[0.0] * 8))],
    }
    for key, value in (row for rows in unfit.values() for row in rows):
        app.run("INSERT INTO items (id, embedding) VALUES (%s, %s)", key, value)
    return unfit


def test_rows_that_do_not_fit_stop_it_before_anything_is_made(app: Schema, owner: Database, tmp_path: Path) -> None:
    unfit = fill_with_unfit(app)
    before = app.made()
    outcome = migrate(owner, app.options(policies={"dimension": "reject"}), folder=tmp_path)
    assert app.made() == before
    assert [sentence.split(":")[0] for sentence in outcome.refusals] == [
        "2 rows do not fit",
        "1 rows do not fit",
    ]
    assert "103 (32 bytes); 104 (32 bytes)" in outcome.refusals[0]
    lines = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    assert [line["action"] for line in lines] == ["rejected"] * 3 + ["stopped"] * 3
    assert [line["id"] for line in lines] == [str(key) for rows in unfit.values() for key, _ in rows]


def test_rows_that_do_not_fit_keep_their_bytes(app: Schema, owner: Database, tmp_path: Path) -> None:
    import base64

    unfit = fill_with_unfit(app)
    policies = {"dimension": "reject", "not_finite_vector": "keep", "zero_vector": "keep"}
    outcome = migrate(owner, app.options(policies=policies), folder=tmp_path)
    assert_closed(outcome)
    part = outcome.receipt.parts[0]
    assert (part.records, part.copied, part.changed, part.rejected) == (26, 21, 2, 3)
    assert [key for key, vector in app.vectors().items() if vector is None] == [100, 101, 102, 103, 104]
    listed = {
        int(line["id"]): base64.b64decode(line["original"]["bytes"])
        for line in map(json.loads, (tmp_path / "rejects.jsonl").read_text().splitlines())
    }
    assert listed == dict(unfit["dimension"] + unfit["not_finite_vector"])
    assert migrate_bytea.exit_code(outcome) == 3

    finished = migrate(owner, app.options(policies=policies, finish=True))
    assert "no vector" in finished.refusals[0]
    assert migrate(owner, app.options(policies=policies, finish=True, constraint=False)).finished


def test_rows_that_come_meanwhile_and_do_not_fit_are_found(app: Schema, owner: Database) -> None:
    app.fill(20)
    assert_closed(migrate(owner, app.options()))
    app.run("INSERT INTO items (id, embedding) VALUES (100, %s)", packed(1, 2, 3))
    outcome = migrate(owner, app.options(finish=True))
    assert "written meanwhile" in outcome.refusals[0]
    assert not outcome.finished
    assert migrate_bytea.exit_code(outcome) == 4


@pytest.mark.parametrize(("dtype", "said"), [(">f4", "big-endian"), ("<f8", "float64"), ("<f2", "float16")])
def test_bytes_that_look_like_something_else_are_refused(app: Schema, owner: Database, dtype: str, said: str) -> None:
    app.fill(100, dtype=dtype, dimension=16)
    before = app.made()
    assert said in migrate(owner, app.options()).refusals[0]
    assert app.made() == before


def test_big_endian(app: Schema, owner: Database) -> None:
    vectors = app.fill(100, dtype=">f4")
    assert_closed(migrate(owner, app.options(big_endian=True)))
    app.run("INSERT INTO items (id, embedding) SELECT 1000, embedding FROM items WHERE id = 5")
    assert app.vectors()[1000] == app.vectors()[5] == vectors[5].tolist()
    with pytest.raises(GuardError, match="something else is asked for"):
        migrate(owner, app.options(big_endian=False))
    with pytest.raises(GuardError, match="something else is asked for"):
        migrate(owner, app.options(dimension=4))


# The trigger


@pytest.mark.parametrize("big_endian", [False, True])
def test_the_trigger_decodes_every_bit(app: Schema, owner: Database, big_endian: bool) -> None:
    app.fill(1, dtype=">f4" if big_endian else "<f4", dimension=64)
    assert_closed(migrate(owner, app.options(big_endian=big_endian, index=None, policies={"zero_vector": "keep"})))
    bits = np.random.default_rng(1).integers(0, 2**32, size=(60, 64), dtype=np.uint64).astype(np.uint32)
    bits[(bits >> 23 & 255) == 255] ^= np.uint32(0x40000000)
    edges = [
        0,
        0x80000000,
        1,
        0x80000001,
        0x7FFFFF,
        0x807FFFFF,
        0x800000,
        0x80800000,
        0x7F7FFFFF,
        0xFF7FFFFF,
        0x3F800000,
    ]
    bits[0, : len(edges)] = edges
    order = ">u4" if big_endian else "<u4"
    for key, row in enumerate(bits, start=10):
        value = row.astype(order).tobytes()
        app.run("INSERT INTO items (id, embedding) VALUES (%s, %b)", key, value)
        app.run("UPDATE items SET embedding = %b WHERE id = 0", value)
        sent = app.run("SELECT vector_send(embedding_vector) FROM items WHERE id IN (0, %s)", key)
        assert sent == [(b"\x00\x40\x00\x00" + row.astype(">u4").tobytes(),)] * 2


def test_the_trigger_never_breaks_a_write(app: Schema, owner: Database) -> None:
    app.fill(5)
    assert_closed(migrate(owner, app.options()))
    for value in (None, b"", b"x", packed(1), packed(float("nan"), *[0] * 7), packed(*[float("inf")] * 8), bytes(33)):
        app.run("UPDATE items SET embedding = %s WHERE id = 1", value)
        app.run("INSERT INTO items (id, embedding) VALUES (50, %s)", value)
        assert app.vectors()[1] is app.vectors()[50] is None
        app.run("DELETE FROM items WHERE id = 50")


def test_the_trigger_leaves_a_vector_that_comes_without_bytes(app: Schema, owner: Database) -> None:
    app.fill(5)
    assert_closed(migrate(owner, app.options()))
    app.run("INSERT INTO items (id, embedding_vector) VALUES (50, %s::real[]::vector)", [1.0] * 8)
    outcome = migrate(owner, app.options())
    assert_closed(outcome)
    assert outcome.receipt.parts[0].notes == {"vector_without_bytes": 1}
    assert app.vectors()[50] == [1.0] * 8


def test_the_trigger_also_works_for_replication_and_copies(app: Schema, owner: Database) -> None:
    app.fill(5)
    assert_closed(migrate(owner, app.options()))
    with app.connection.transaction():
        app.run("SET LOCAL session_replication_role = replica")
        app.run("UPDATE items SET embedding = %s WHERE id = 1", packed(*[2] * 8))
        with app.connection.cursor() as cursor, cursor.copy("COPY items (id, embedding) FROM STDIN") as copy:
            copy.write_row((50, packed(*[3] * 8)))
    assert (app.vectors()[1], app.vectors()[50]) == ([2.0] * 8, [3.0] * 8)


def test_the_trigger_sees_what_other_triggers_make(app: Schema, owner: Database) -> None:
    app.fill(5)
    app.run(
        "CREATE FUNCTION swap() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN NEW.embedding := decode(repeat('0000803f', 8), 'hex'); RETURN NEW; END $$;"
        "CREATE TRIGGER swap BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION swap()"
    )
    assert_closed(migrate(owner, app.options()))
    app.run("INSERT INTO items (id, embedding) VALUES (50, %s)", packed(*[2] * 8))
    assert app.vectors()[50] == [1.0] * 8


def touch_trigger(app: Schema) -> None:
    app.run(
        "ALTER TABLE items ADD COLUMN touched int NOT NULL DEFAULT 0;"
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN NEW.touched := OLD.touched + 1; RETURN NEW; END $$;"
        "CREATE TRIGGER touch BEFORE UPDATE ON items FOR EACH ROW EXECUTE FUNCTION touch()"
    )


def test_the_tables_own_triggers_are_asked_about(app: Schema, owner: Database) -> None:
    app.fill(5)
    touch_trigger(app)
    before = app.made()
    assert "touch" in migrate(owner, app.options()).refusals[0]
    assert app.made() == before


@pytest.mark.parametrize(("choice", "touched"), [("skip", 0), ("fire", 1)])
def test_the_tables_own_triggers(app: Schema, owner: Database, choice: str, touched: int) -> None:
    app.fill(5)
    touch_trigger(app)
    assert_closed(migrate(owner, app.options(triggers=choice)))
    assert app.run("SELECT DISTINCT touched FROM items") == [(touched,)]
    with pytest.raises(GuardError, match="own triggers"):
        migrate(owner, app.options())


# Beside others


@contextmanager
def held(conninfo: str, statement: str, *, seconds: float) -> Iterator[None]:
    """A transaction that has run a statement and stays open for a while."""
    ready = threading.Event()

    def hold() -> None:
        with psycopg.connect(conninfo) as connection:
            connection.execute(statement)
            ready.set()
            time.sleep(seconds)

    thread = threading.Thread(target=hold)
    thread.start()
    ready.wait()
    yield
    thread.join()


def test_a_lock_is_not_waited_for_in_front_of_others(app: Schema, owner: Database) -> None:
    app.fill(5)
    steps: list[str] = []
    waits: list[float] = []
    done = threading.Event()

    def read() -> None:
        with psycopg.connect(app.conninfo(owner), autocommit=True) as reader:
            while not done.wait(0.005):
                started = time.perf_counter()
                reader.execute("SELECT count(*) FROM items")
                waits.append(time.perf_counter() - started)

    reading = threading.Thread(target=read)
    reading.start()
    with held(app.conninfo(owner), "SELECT FROM items", seconds=1.0):
        outcome = migrate(owner, app.options(), on_progress=lambda now: steps.append(now.step))
    done.set()
    reading.join()
    assert_closed(outcome)
    assert any("idle in transaction" in step and "holds a lock" in step for step in steps)
    assert max(waits) < 0.5  # behind a lock that waits for its turn it would be a second


def test_rows_that_are_held_come_later(app: Schema, owner: Database) -> None:
    app.fill(300)
    migrate(owner, app.options(index=None))
    app.run("UPDATE items SET embedding_vector = NULL")
    app.run("UPDATE synapse_bytea_migrations SET position = NULL")
    with held(app.conninfo(owner), "UPDATE items SET title = 'held' WHERE id = 150", seconds=0.7):
        outcome = migrate(owner, app.options(index=None, batch=50))
    assert_closed(outcome)
    assert outcome.filled == 300
    assert app.run("SELECT title FROM items WHERE id = 150") == [("held",)]


def test_another_run_is_refused(app: Schema, owner: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    app.fill(5)
    monkeypatch.setattr(bytea_changes, "RUN_PATIENCE", 0.3)
    with owner.unpooled() as connection:
        bytea_changes.hold_run(connection, _table(owner, app))
        with pytest.raises(GuardError, match=f"process {connection.info.backend_pid}"):
            migrate(owner, app.options())
    assert_closed(migrate(owner, app.options()))


@pytest.mark.slow
def test_beside_a_writer_no_update_is_lost() -> None:
    found = measure(rows=4000, dimension=32, rest=0.0005, index=SMALL)
    assert found["outcome"] == "closed"
    assert (found["lost_updates"], found["wrong_vectors"]) == (0, 0)
    assert found["meanwhile"]["writes_per_s"] > 20


# Interrupted


class Stopped(Exception):
    """The run ends here."""


def stopped_at(owner: Database, options: Options, step: str, *, times: int = 1) -> None:
    """Run until a step, and give up there."""
    left = times

    def stop(now: Progress) -> None:
        nonlocal left
        if now.step.startswith(step):
            left -= 1
            if not left:
                raise Stopped

    with pytest.raises(Stopped):
        migrate(owner, options, on_progress=stop)


@pytest.mark.parametrize("step", ["checking", "filling", "verifying", "searching"])
def test_stopped_and_run_again(app: Schema, owner: Database, step: str) -> None:
    app.fill(600)
    whole = migrate(owner, app.options(batch=100)).receipt.to_dict()
    revert(owner, app.options(), on_wait=print)
    stopped_at(owner, app.options(batch=100), step)
    again = migrate(owner, app.options(batch=100))
    assert_closed(again)
    assert {**again.receipt.to_dict(), "run": 0} == {**whole, "run": 0}


def test_a_batch_that_was_committed_is_not_done_again(app: Schema, owner: Database) -> None:
    app.fill(600)
    stopped_at(owner, app.options(batch=100), "filling", times=3)
    (position,) = app.run("SELECT position FROM synapse_bytea_migrations")[0]
    assert int(position[0]) >= 299
    assert migrate(owner, app.options(batch=100)).filled == 600 - int(position[0]) - 1


@pytest.mark.parametrize("step", ["filling", "verifying", "searching", None])
def test_reverted_from_any_state(app: Schema, owner: Database, step: str | None) -> None:
    app.fill(300)
    before = app.made(), app.run("SELECT id, title, embedding FROM items ORDER BY 1")
    if step:
        stopped_at(owner, app.options(), step)
    else:
        assert migrate(owner, app.options(finish=True)).finished
    removed = revert(owner, app.options(), on_wait=print)
    assert "column embedding_vector" in removed
    assert (app.made(), app.run("SELECT id, title, embedding FROM items ORDER BY 1")) == before
    assert revert(owner, app.options(), on_wait=print) == []


def test_what_a_run_left_that_died_before_its_column_is_taken_away(app: Schema, owner: Database) -> None:
    app.fill(5)
    before = app.made()
    migrate(owner, app.options())
    app.run("ALTER TABLE items DROP COLUMN embedding_vector CASCADE; DELETE FROM synapse_bytea_migrations")
    app.run("DROP TRIGGER zzz_synapse_items_embedding_vector_insert ON items")
    app.run("DROP TRIGGER zzz_synapse_items_embedding_vector_update ON items")
    assert revert(owner, app.options(), on_wait=print) == []
    assert app.made() == before


def test_what_uses_the_column_is_not_taken_away(app: Schema, owner: Database) -> None:
    app.fill(5)
    migrate(owner, app.options())
    app.run("CREATE VIEW search AS SELECT id, embedding_vector FROM items")
    with pytest.raises(GuardError, match="search"):
        revert(owner, app.options(), on_wait=print)
    assert_closed(migrate(owner, app.options()))


def test_a_column_that_is_not_ours_is_never_taken_away(app: Schema, owner: Database) -> None:
    app.fill(5)
    app.run("ALTER TABLE items ADD COLUMN embedding_vector vector(8)")
    before = app.made()
    assert revert(owner, app.options(), on_wait=print) == []
    assert app.made() == before


def test_bytes_that_were_dropped_are_not_reverted_to(app: Schema, owner: Database) -> None:
    app.fill(5)
    migrate(owner, app.options(finish=True, keep_trigger=False))
    app.run("ALTER TABLE items DROP COLUMN embedding")
    with pytest.raises(SchemaError, match="A column embedding was expected"):
        revert(owner, app.options(), on_wait=print)
    assert len([vector for vector in app.vectors().values() if vector]) == 5


def test_an_index_that_a_killed_build_left_is_built_anew(app: Schema, owner: Database) -> None:
    app.fill(50)
    migrate(owner, app.options(index=None))
    with psycopg.connect(app.conninfo(owner)) as snapshot:
        snapshot.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        snapshot.execute("SELECT FROM items")
        app.run("SET statement_timeout = '300ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            app.run(
                "CREATE INDEX CONCURRENTLY items_embedding_vector_hnsw ON items USING hnsw (embedding_vector vector_l2_ops)"
            )
        app.run("RESET statement_timeout")
    outcome = migrate(owner, app.options())
    assert_closed(outcome)
    assert "vector_cosine_ops" in app.run("SELECT pg_get_indexdef('items_embedding_vector_hnsw'::regclass)")[0][0]


def test_an_index_of_the_same_name_is_not_touched(app: Schema, owner: Database) -> None:
    app.fill(5)
    app.run("CREATE INDEX items_embedding_vector_hnsw ON items (title)")
    with pytest.raises(GuardError, match="another has that name"):
        migrate(owner, app.options())
    assert_closed(migrate(owner, app.options(index=Index(name="Another index"))))


def test_another_index_than_was_built_is_refused(app: Schema, owner: Database) -> None:
    app.fill(5)
    migrate(owner, app.options())
    with pytest.raises(GuardError, match="was built as"):
        migrate(owner, app.options(index=Index(m=5, ef_construction=16)))


def test_a_column_that_somebody_dropped_is_made_again(app: Schema, owner: Database) -> None:
    app.fill(50)
    migrate(owner, app.options())
    app.run("ALTER TABLE items DROP COLUMN embedding_vector CASCADE")
    outcome = migrate(owner, app.options())
    assert_closed(outcome)
    assert outcome.filled == 50


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_killed_at_random_moments_beside_a_writer(app: Schema, owner: Database) -> None:
    app.fill(6000)
    stop, expected = threading.Event(), {}
    choose = random.Random(1)

    def write() -> None:
        with psycopg.connect(app.conninfo(owner), autocommit=True) as connection:
            while not stop.is_set():
                key, value = choose.randrange(6000), np.random.default_rng().standard_normal(8).astype("<f4").tobytes()
                connection.execute("UPDATE items SET embedding = %b WHERE id = %s", [value, key])
                expected[key] = value
                time.sleep(0.002)

    writer = threading.Thread(target=write)
    writer.start()
    command = [sys.executable, "-c", "import sys; from tests.support.bytea_program import main; main(*sys.argv[1:])"]
    program = subprocess.Popen(
        [*command, owner.conninfo, f"{app.name}.items"], cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    assert program.stdin
    assert program.stdout
    outcomes = []
    with program:
        for seconds in [*(choose.uniform(0.02, 0.7) for _ in range(12)), 60]:
            program.stdin.write(f"{seconds}\n")
            program.stdin.flush()
            outcomes.append(program.stdout.readline().strip())
        program.stdin.close()
    stop.set()
    writer.join()
    assert outcomes[-1] == "done"
    assert outcomes.count("killed") >= 3, outcomes
    assert set(outcomes) == {"killed", "done"}
    outcome = migrate(owner, app.options(index=Index(m=4, ef_construction=8)))
    assert_closed(outcome)
    assert outcome.receipt.parts[0].copied == 6000
    found = dict(app.run("SELECT id, embedding FROM items"))
    assert all(found[key] == value for key, value in expected.items())


# What is found afterwards


def test_a_vector_that_is_not_its_bytes_is_named(app: Schema, owner: Database) -> None:
    app.fill(50)
    migrate(owner, app.options())
    app.run("UPDATE items SET embedding_vector = (SELECT embedding_vector FROM items WHERE id = 1) WHERE id = 33")
    outcome = migrate(owner, app.options(finish=True))
    part = outcome.receipt.parts[0]
    assert (part.different.count, part.different.examples[0]["key"]) == (1, ["33"])
    assert part.source_checksum != part.target_checksum
    assert not outcome.finished
    assert migrate_bytea.exit_code(outcome) == 5
    app.run("UPDATE items SET embedding_vector = NULL WHERE id = 33")
    assert_closed(migrate(owner, app.options()))


def test_a_canary_that_finds_too_little_keeps_it_from_being_final(app: Schema, owner: Database) -> None:
    app.fill(2000)
    sparse = Index(method="ivfflat", lists=200)
    outcome = migrate(owner, app.options(index=sparse, effort=1, finish=True))
    assert not outcome.finished
    assert "of the ten nearest" in outcome.receipt.open()[0]
    assert migrate(owner, app.options(index=sparse, effort=200, finish=True)).finished


def test_equal_vectors_are_ties(app: Schema, owner: Database) -> None:
    app.fill(10)
    app.run(
        "INSERT INTO items (id, embedding) SELECT n, embedding FROM items, generate_series(100, 200) n WHERE id = 0"
    )
    outcome = migrate(owner, app.options())
    assert_closed(outcome)
    assert outcome.receipt.parts[0].checks["canary"]["overlap@10"] == 1.0


# The command


def command(app: Schema, owner: Database, *arguments: str) -> Any:
    program = typer.Typer()
    program.command()(migrate_bytea.bytea)
    given = [f"{app.name}.items", "embedding", "--database-url", owner.conninfo, *arguments]
    return CliRunner().invoke(program, given)


def test_the_command_from_dry_run_to_revert(app: Schema, owner: Database, tmp_path: Path) -> None:
    app.fill(50)
    for arguments, last in (
        (["--dry-run"], "All of it can be done. Nothing was changed."),
        (["--receipt", str(tmp_path / "new")], "The books are closed. Everything is ready for --finish."),
        (["--finish", "--drop-trigger"], "The books are closed, and it is final."),
        (["--revert"], "Column embedding is as it was."),
        (["--revert"], "There was nothing to take away."),
    ):
        done = command(app, owner, *arguments)
        assert (done.exit_code, last in done.stdout.splitlines()[-1]) == (0, True), done.output
    receipt = json.loads((tmp_path / "new" / "receipt.json").read_text())
    assert receipt["closed"]
    assert (tmp_path / "new" / "receipt.md").read_text().startswith("# Migration")


def test_the_command_prints_one_object(app: Schema, owner: Database) -> None:
    fill_with_unfit(app)
    refused = command(app, owner, "--json")
    assert refused.exit_code == 4
    assert len(json.loads(refused.stdout)["problems"]) == 3
    kinds = ("dimension", "not_finite_vector", "zero_vector")
    done = command(app, owner, "--json", *(text for kind in kinds for text in ("--on", f"{kind}=reject")))
    assert done.exit_code == 3, done.output
    printed = json.loads(done.stdout)
    assert (printed["filled"], printed["finished"], printed["closed"]) == (20, False, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--on", "dimension"],
        ["--on", "size=keep"],
        ["--index", "flat"],
        ["--distance", "dot"],
        ["--dimension", "9999999"],
    ],
)
def test_the_command_refuses_what_it_does_not_know(app: Schema, owner: Database, arguments: Sequence[str]) -> None:
    assert command(app, owner, *arguments).exit_code == 2


def _table(owner: Database, app: Schema) -> Any:
    from migration.bytea_table import find_table

    with owner.unpooled() as connection:
        return find_table(connection, f"{app.name}.items", column="embedding")
