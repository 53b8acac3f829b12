"""SQLite tables in PostgreSQL: every value equal, or in the rejects file; whatever interrupts, whatever is there already."""

from __future__ import annotations

import base64
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from commands.migrate_sqlite import sqlite
from database.connection import Database
from database.errors import GuardError, InvalidInputError
from migration.relational.mover import UndecidedError
from migration.sources.sqlite_tables import SqliteTables
from tests.fixtures.sqlite.chat import make_chat
from tests.fixtures.sqlite.hostile import make_hostile
from tests.support.sqlite import KEEP, Move, lasting

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def move(owner: Database, tmp_path: Path) -> Iterator[Move]:
    moved = Move(owner, tmp_path / "source.db", tmp_path / "receipt")
    yield moved
    moved.execute('DROP SCHEMA IF EXISTS "moved" CASCADE')


@pytest.fixture
def made(move: Move) -> Callable[[str], Move]:
    """A migration of a database that a script makes."""

    def make(script: str) -> Move:
        with sqlite3.connect(move.file) as connection:
            connection.executescript(script)
        connection.close()
        return move

    return make


# Every value

TYPES = ["", "INTEGER", "REAL", "TEXT", "BLOB", "NUMERIC", "DECIMAL(8,3)", "BOOLEAN", "VARCHAR(4)", "DATETIME", "DATE",
         "TIME", "JSON", "UUID", "TIMESTAMP", "FANTASY"]  # fmt: skip
AWKWARD = ["", "0", "12", "-0", "1e5", "0.5", "inf", "nan", "true", "t", "\\x", "\\x00ff", "null", "[1, 2]", '{"a": 1}',
           "2024-02-29", "2024-02-29 10:00:00", "2024-02-29T10:00:00.123Z", "2024-02-30 10:00:00", "10:00:00", "24:00:00",
           "0001-01-01 00:00:00", "123e4567-e89b-12d3-a456-426614174000", "\u0660", "\ufeff", "\ud7ff\U0010ffff", "a\\b\n\t"]  # fmt: skip
INTEGERS = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 1, 2, 1_700_000_000, 1_700_000_000_000, 2_460_000])
FLOATS = st.floats(allow_nan=False) | st.sampled_from([-0.0, 1e19, 2460000.25, 1_700_000_000.5, 0.1, 1e-7, 5e-324])
BAD = st.sampled_from([b"\x00", b"a\x00b", b"\xff", b"\xed\xa0\x80", b"ok \xc3("])
TEXTS = st.sampled_from(AWKWARD) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6
)


class Bad(bytes):
    """Bytes that are stored as a text."""


def cells(kind: str) -> st.SearchStrategy[Any]:
    """Mostly of a few kinds, so that columns are found that are not mixed."""
    return {
        "int": INTEGERS,
        "float": FLOATS,
        "text": TEXTS,
        "blob": st.binary(max_size=5),
        "bad": BAD.map(Bad),
        "time": st.datetimes(datetime(1, 1, 1)).map(lambda moment: moment.replace(microsecond=0).isoformat(" ")),
        "flag": st.integers(0, 1),
    }[kind]


@st.composite
def databases(draw: st.DrawFn) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Declared types of columns, and rows."""
    types = draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=4))
    kinds = st.sampled_from(["int", "float", "text", "blob", "bad", "time", "flag"])
    columns = [
        st.one_of(st.none(), *(cells(kind) for kind in draw(st.lists(kinds, min_size=1, max_size=2)))) for _ in types
    ]
    return types, draw(st.lists(st.tuples(*columns), min_size=1, max_size=6))


def stored(file: Path, table: str) -> dict[int, tuple[Any, ...]]:
    """What a table holds, by row number: text as its bytes, marked; read without any of the program."""
    connection = sqlite3.connect(file)
    connection.text_factory = Bad
    rows = {row[0]: row[1:] for row in connection.execute(f'SELECT rowid, * FROM "{table}" ORDER BY rowid')}  # noqa: S608
    connection.close()
    return rows


def text_of(value: Any) -> str | None:
    """The text that a stored value is, if PostgreSQL can hold it."""
    try:
        text = bytes(value).decode() if isinstance(value, Bad) else None
    except UnicodeDecodeError:
        return None
    return None if text is None or "\0" in text else text


def is_equal(value: Any, there: Any) -> bool:
    """Whether what PostgreSQL holds is the stored value, in the form that its type has for it."""
    if value is None or there is None:
        return value is None and there is None
    text = text_of(value)
    if isinstance(there, bool):
        return value in (0, 1) and there == bool(value) if text is None else text[0].lower() == "ft"[there]
    if isinstance(there, datetime):
        if text is not None:
            return datetime.fromisoformat(text) == there
        unix = (there - datetime(1970, 1, 1, tzinfo=there.tzinfo)).total_seconds()
        return (
            any(abs(unix * per - value) < per * 1e-6 for per in (1, 1e3, 1e6))
            or abs(unix / 86400 + 2440587.5 - value) < 1e-9
        )
    if isinstance(there, date | time):
        return text is not None and type(there).fromisoformat(text) == there
    if isinstance(value, Bad):
        return text is not None and str(there) == text
    if isinstance(there, str):
        return there == ("\\x" + value.hex() if isinstance(value, bytes) else repr(value))
    if isinstance(there, bytes):
        return type(value) is bytes and there == value
    if isinstance(there, float):
        return type(value) is float and value.hex() == there.hex()
    return type(value)(there) == value and there == type(there)(repr(value))  # int and Decimal


def original(line: dict[str, Any]) -> Any:
    """What a line of the rejects file keeps of a cell, in the form of `stored`."""
    kept = line["original"]
    if line["action"] == "rejected":
        kept = kept[line["field"]]
    if isinstance(kept, dict):
        return float(kept["float"]) if "float" in kept else base64.b64decode(kept["bytes"])
    return Bad(kept.encode("utf-8", "surrogateescape")) if isinstance(kept, str) else kept


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@example(database=(["DATETIME", "DATE"], [(2460000.25, 1_700_000_000)]), policy="keep")
@example(database=(["", "NUMERIC"], [(1, 1), (-0.0, 0.1), (0.5, 1e22)]), policy="keep")
@given(database=databases(), policy=st.sampled_from(["keep", "reject"]))
def test_every_value_is_equal_or_in_the_rejects_file(
    owner: Database, tmp_path_factory: pytest.TempPathFactory, database: Any, policy: str
) -> None:
    types, rows = database
    folder = tmp_path_factory.mktemp("property")
    move = Move(owner, folder / "a.db", folder, schema="property", policies=dict.fromkeys(KEEP, policy))
    connection = sqlite3.connect(move.file)
    connection.execute(f"CREATE TABLE t ({', '.join(f'c{n} {type_}' for n, type_ in enumerate(types))})")
    for row in rows:
        marks = ", ".join("CAST(? AS TEXT)" if isinstance(value, Bad) else "?" for value in row)
        connection.execute(f"INSERT INTO t VALUES ({marks})", row)  # noqa: S608
    connection.commit()
    connection.close()
    try:
        receipt = move.run()
        assert receipt.closed, receipt.open()
        (part,) = receipt.parts
        columns = ["rowid", *(f"c{n}" if type_ != "JSON" else f"c{n}::text" for n, type_ in enumerate(types))]
        there = {row[0]: row[1:] for row in move.rows("t", ", ".join(columns))}
        lines = {(line["id"], line["field"]): line for line in move.rejects()}
    finally:
        move.roll_back()
    before = stored(move.file, "t")
    assert part.records == len(before)
    assert before.keys() - there.keys() == {line["id"] for line in lines.values() if line["action"] == "rejected"}
    assert part.rejected == len(before) - len(there)
    for number, values in before.items():
        for place, value in enumerate(values):
            line = lines.get((number, f"c{place}"))
            if line is not None:
                kept = original(line)
                assert type(kept) is type(value), line
                assert repr(kept) == repr(value), line
            elif number in there:
                assert is_equal(value, there[number][place]), (types[place], value, there[number][place])
    for place in range(len(types)):  # what differed still differs, unless a line says so
        unnamed = [n for n in there if (n, f"c{place}") not in lines]
        pairs = {(type(before[n][place]), repr(before[n][place])) for n in unnamed}
        assert len(pairs) == len({repr(there[n][place]) for n in unnamed})


# A hostile database


@pytest.fixture
def hostile(move: Move) -> Move:
    make_hostile(move.file)
    move.policies = KEEP
    return move


def test_hostile_database(hostile: Move) -> None:
    receipt = hostile.run()
    assert receipt.closed, receipt.open()
    parts = {part.name: part for part in receipt.parts}
    assert {name: (part.records, part.copied, part.changed) for name, part in parts.items()} == {
        "anything": (35, 13, 22),
        "children": (4, 2, 2),
        "duplicates": (31, 31, 0),
        "hollow": (0, 0, 0),
        "lost": (2, 1, 1),
        "nullable_key": (3, 3, 0),
        "pairs": (3, 2, 1),
        "parents": (2, 2, 0),
        "select": (1, 1, 0),
        "typed": (2, 0, 2),
    }
    assert hostile.rows("duplicates", "count(*), count(DISTINCT rowid)") == [(31, 31)]
    assert {row[:2] for row in hostile.rows("nullable_key", "code, n")} == {(None, 1), (None, 2), ("a", 3)}
    (select,) = hostile.execute('SELECT * FROM S."select"')
    assert list(select) == [
        "id",
        "Mixed Case",
        'with "quotes"',
        "xmin_eafb2f50",
        "naïve — é",
        "a name of more than sixty-three bytes, which is all th_cb85d485",
    ]
    before = stored(hostile.file, "anything")
    lines = {(line["id"], line["field"]): line for line in hostile.rejects() if line["part"] == "anything"}
    for number, value, note in hostile.rows("anything", "rowid, value, note"):
        for field, there, was in zip(("value", "note"), (value, note), before[number], strict=True):
            line = lines.get((number, field))
            assert is_equal(was, there) if line is None else repr(original(line)) == repr(was)


def test_what_is_not_carried_is_named(hostile: Move) -> None:
    receipt = hostile.run()
    named = {item["name"] for item in receipt.left_out}
    assert named == {
        "seen",
        "watch",
        *(f"words{suffix}" for suffix in ("", "_config", "_content", "_data", "_docsize", "_idx")),
        "children.odd: DEFAULT",
        "children.doubled: GENERATED",
        "nullable_key: primary key (code)",
        "children: index children_globbed",
        "children: check (created GLOB '2*')",
        "lost: foreign key (a) to nowhere",
    }


def test_definitions_are_carried(hostile: Move) -> None:
    hostile.run()
    hostile.execute("INSERT INTO S.parents (code) VALUES ('new')")
    assert hostile.execute("SELECT name FROM S.parents WHERE code = 'new'") == [{"name": r"it's \ new"}]
    with pytest.raises(Exception, match="duplicate key"):
        hostile.execute("INSERT INTO S.parents (code) VALUES ('NEW')")  # as its key folds letters
    (child,) = hostile.execute(
        "INSERT INTO S.children (parent) VALUES ('new') RETURNING id, weight, flag, blob_, created ~ '^2' AS is_time"
    )
    assert child == {"id": 5, "weight": 0.5, "flag": True, "blob_": b"\x00\xff", "is_time": True}
    assert hostile.execute("INSERT INTO S.typed (whole) VALUES ('x') RETURNING id, small") == [{"id": 42, "small": 7}]
    for refused in ("weight) VALUES (-1)", "parent) VALUES ('nobody')"):
        with pytest.raises(Exception, match="violates"):
            hostile.execute(f"INSERT INTO S.children ({refused}")
    hostile.execute("DELETE FROM S.parents WHERE code = 'new'")
    assert hostile.execute("SELECT count(*) AS n FROM S.children WHERE id = 5") == [{"n": 0}]
    definitions = {
        row["indexdef"] for row in hostile.execute("SELECT indexdef FROM pg_indexes WHERE schemaname = 'moved'")
    }
    assert (
        "CREATE INDEX children_of ON moved.children USING btree (parent, weight DESC) WHERE (flag = true)"
        in definitions
    )
    assert 'CREATE INDEX children_odd ON moved.children USING btree (lower((odd COLLATE "C")))' in definitions


def test_the_source_stays_as_it_was(hostile: Move) -> None:
    before = (hostile.file.read_bytes(), hostile.file.stat().st_mtime_ns, sorted(hostile.file.parent.iterdir()))
    receipt = hostile.run()
    assert receipt.source["fingerprint"] == receipt.source["fingerprint_after"]
    now = sorted(path for path in hostile.file.parent.iterdir() if path != hostile.folder)
    assert (hostile.file.read_bytes(), hostile.file.stat().st_mtime_ns, now) == before


# Types


@pytest.mark.parametrize(
    ("declared", "values", "type_", "written"),
    [
        ("INTEGER", [1, 2**63 - 1], "bigint", "integer"),
        ("INTEGER", [1, 2.5], "numeric", "exact number"),
        ("INTEGER", [1, "x"], "text", "text, numbers written out"),
        ("INTEGER", [1e300], "numeric", "exact number"),
        ("REAL", [0.1, float("inf")], "double precision", "float"),
        ("DECIMAL(6,2)", [1.25, 3], "numeric(6,2)", "decimal"),
        ("DECIMAL(6,2)", [1.255], "numeric", "exact number"),
        ("BOOLEAN", [0, 1, None], "boolean", "0 and 1"),
        ("BOOLEAN", ["t", "f"], "boolean", "f and t"),
        ("BOOLEAN", ["true", "false"], "boolean", "false and true"),
        ("BOOLEAN", [0, 2], "bigint", "integer"),
        ("VARCHAR(3)", ["abc", "é😀ü"], "varchar(3)", "text"),
        ("VARCHAR(3)", ["abcd"], "text", "text"),
        ("TEXT", ["a", b"\x00"], "text", "text, bytes as \\x…"),
        ("BLOB", [b"\x00", b""], "bytea", "bytes"),
        ("BLOB", ["text"], "text", "text"),
        ("", [1, 2], "bigint", "integer"),
        ("", [1, 0.5], "numeric", "exact number"),
        ("DATETIME", ["2024-02-29 10:00:00", "2024-02-29 10:00:00.000001"], "timestamp without time zone",
         "text like 2000-12-31 23:59:59.500000"),
        ("DATETIME", ["2024-02-29T10:00:00.123Z"], "timestamp with time zone", "text like 2000-12-31T23:59:59.500Z"),
        ("DATETIME", ["2024-02-29 10:00"], "timestamp without time zone", "text like 2000-12-31 23:59"),
        ("DATETIME", ["2024-02-30 10:00:00"], "text", "text"),
        ("DATETIME", [1_700_000_000], "timestamp with time zone", "unix seconds"),
        ("DATETIME", [1_700_000_000.25], "timestamp with time zone", "unix seconds"),
        ("DATETIME", [1_700_000_000_123], "timestamp with time zone", "unix milliseconds"),
        ("DATETIME", [2460000.5, 2460001], "timestamp without time zone", "julian days"),
        ("DATETIME", [5, 17], "bigint", "integer"),
        ("DATETIME", ["2024-02-29"], "date", "text like 2000-12-31"),
        ("DATE", ["2024-02-29"], "date", "text like 2000-12-31"),
        ("TIME", ["23:59:59"], "time without time zone", "text like 23:59:59.500000"),
        ("JSON", ['{"b": 1, "a": 1.0, "b": 2}', "[1e400]"], "json", "JSON text"),
        ("JSON", ["{"], "text", "text"),
        ("UUID", ["123e4567-e89b-12d3-a456-426614174000"], "uuid", "uuid"),
        ("UUID", ["123E4567-E89B-12D3-A456-426614174000"], "text", "text"),
    ],
)  # fmt: skip
def test_types(move: Move, declared: str, values: list[Any], type_: str, written: str) -> None:
    with sqlite3.connect(move.file) as connection:
        connection.execute(f"CREATE TABLE t (c {declared})")
        connection.executemany("INSERT INTO t VALUES (?)", [[value] for value in values])
    receipt = move.run()
    assert receipt.closed
    (column,) = receipt.parts[0].facts["columns"].values()
    assert (column["type"], column["written"]) == (type_, written)
    before = stored(move.file, "t")
    select = "rowid, c::text" if type_ == "json" else "rowid, c"
    assert all(is_equal(before[number][0], there) for number, there in move.rows("t", select))


def test_times_are_the_same_moments(made: Callable[[str], Move]) -> None:
    move = made(
        "CREATE TABLE t (unix DATETIME, julian DATETIME, iso DATETIME);"
        "INSERT INTO t VALUES (1700000000, 2460263.5, '2023-11-14T22:13:20Z');"
    )
    move.run()
    unix, julian, iso, _ = move.rows("t")[0]
    assert unix == iso
    assert julian == datetime(2023, 11, 15)


# Policies


def test_nothing_is_written_before_a_decision(made: Callable[[str], Move]) -> None:
    move = made("CREATE TABLE t (a TEXT); INSERT INTO t VALUES (CAST(x'00' AS TEXT)), ('b')")
    with pytest.raises(UndecidedError, match="1 row: nul") as caught:
        move.run()
    assert caught.value.receipt.parts[0].changes["nul"].policy == "stop"
    assert move.rejects()[0] == {
        "part": "t", "id": 1, "kind": "nul", "action": "stopped", "field": "a", "original": "\x00"
    }  # fmt: skip
    assert move.execute("SELECT FROM pg_namespace WHERE nspname = 'moved'") == []


@pytest.mark.parametrize(("policy", "rows", "outcome"), [("keep", 2, (1, 1, 0)), ("reject", 1, (1, 0, 1))])
def test_what_cannot_be_written(made: Callable[[str], Move], policy: str, rows: int, outcome: tuple[int, ...]) -> None:
    move = made("CREATE TABLE t (a TEXT, n INTEGER); INSERT INTO t VALUES (CAST(x'61ff' AS TEXT), 7), ('b', 8)")
    move.policies = {"invalid_utf8": policy}
    receipt = move.run()
    part = receipt.parts[0]
    assert receipt.closed
    assert (part.copied, part.changed, part.rejected) == outcome
    assert len(move.rows("t")) == rows
    (line,) = move.rejects()
    assert line["original"] == ("a\udcff" if policy == "keep" else {"a": "a\udcff", "n": 7})


def test_rejecting_instead_of_widening(made: Callable[[str], Move]) -> None:
    move = made("CREATE TABLE t (a INTEGER); INSERT INTO t VALUES (1), ('two'), (3)")
    move.policies = {"widened": "reject"}
    receipt = move.run()
    assert receipt.closed
    assert move.rows("t", "a") == [(1,), (3,)]
    assert move.rejects()[0]["original"] == {"a": "two"}


def test_stopping_instead_of_widening(made: Callable[[str], Move]) -> None:
    move = made("CREATE TABLE t (a DATETIME); INSERT INTO t VALUES ('2024-02-29 10:00:00'), ('2024-02-29T10:00:00')")
    assert move.run("dry_run").problems == []
    move.policies = {"widened": "stop"}
    with pytest.raises(UndecidedError, match=r"t\.a: DATETIME cannot hold all of 2 texts; it becomes text"):
        move.run()


def test_rejected_rows_leave_no_orphans_behind(made: Callable[[str], Move]) -> None:
    move = made(
        "CREATE TABLE a (id INTEGER PRIMARY KEY, word TEXT);"
        "CREATE TABLE b (id INTEGER PRIMARY KEY, a INTEGER REFERENCES a);"
        "CREATE TABLE c (id INTEGER PRIMARY KEY, b INTEGER REFERENCES b);"
        "INSERT INTO a VALUES (1, CAST(x'00' AS TEXT)), (2, 'fine');"
        "INSERT INTO b VALUES (1, 1), (2, 2), (3, NULL); INSERT INTO c VALUES (1, 1), (2, 2), (3, 99);"
    )
    move.policies = {"nul": "reject", "orphan": "reject"}
    receipt = move.run()
    assert receipt.closed, receipt.open()
    assert {part.name: (part.records, part.rejected) for part in receipt.parts} == {
        "a": (2, 1),
        "b": (3, 1),
        "c": (3, 2),
    }
    assert [part.checks.get("foreign key (b) to b") for part in receipt.parts][2] == {
        "passed": True, "orphans": 0, "validated": True
    }  # fmt: skip


def test_unknown_policies_and_tables(made: Callable[[str], Move]) -> None:
    move = made("CREATE TABLE t (a)")
    for changes, message in (
        ({"policies": {"nil": "keep"}}, "one of ambiguous"),
        ({"policies": {"nul": "drop"}}, "stop, keep or reject"),
        ({"policies": {}, "tables": ("u",)}, "has no u"),
    ):
        vars(move).update(changes)
        with pytest.raises(InvalidInputError, match=message):
            move.run()


# The target


def test_a_schema_with_tables_is_refused(made: Callable[[str], Move]) -> None:
    move = made("CREATE TABLE t (a)")
    move.execute('CREATE SCHEMA "moved"; CREATE TABLE S.mine (a integer)')
    for what in ("run", "dry_run"):
        with pytest.raises(GuardError, match="holds mine"):
            move.run(what)
    with pytest.raises(GuardError, match="none to verify"):
        move.run("verify")
    with pytest.raises(GuardError, match="none to take back"):
        move.roll_back()


def test_another_source_or_choice_is_refused(made: Callable[[str], Move]) -> None:
    move = made("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    move.run()
    move.policies = {"nul": "keep"}
    with pytest.raises(GuardError, match="another choice of policies"):
        move.run()
    move.policies = {}
    made("INSERT INTO t VALUES (2)")
    with pytest.raises(GuardError, match="another source"):
        move.run()
    receipt = move.run("verify")
    assert receipt.warnings == ["The source is not the one that was migrated: it has changed since."]
    assert receipt.parts[0].missing.examples == [2]


def test_a_dry_run_writes_nothing_and_says_the_same(hostile: Move) -> None:
    dry = hostile.run("dry_run")
    assert hostile.execute("SELECT FROM pg_namespace WHERE nspname = 'moved'") == []
    real = hostile.run()
    for one, other in zip(dry.parts, real.parts, strict=True):
        assert (one.copied, one.changed, one.changes, one.facts) == (
            other.copied,
            other.changed,
            other.changes,
            other.facts,
        )
        assert one.source_checksum == other.source_checksum == other.target_checksum


def test_running_again_changes_nothing(hostile: Move) -> None:
    first = hostile.run()
    lines = hostile.rejects()
    again = hostile.run()
    assert lasting(first) == lasting(again)
    assert hostile.rejects() == lines


def test_verify_names_what_differs(hostile: Move) -> None:
    hostile.run()
    assert hostile.run("verify").closed
    hostile.execute("UPDATE S.typed SET made = 'other' WHERE id = 2")
    hostile.execute("DELETE FROM S.pairs WHERE a = 'y'")
    hostile.execute("INSERT INTO S.duplicates VALUES ('1', 'same', 77)")
    hostile.execute("UPDATE S.parents SET code = 'C' WHERE code = 'B'")
    receipt = hostile.run("verify")
    parts = {part.name: part for part in receipt.parts}
    assert parts["typed"].different.examples == [{"id": 2, "columns": ["made"]}]
    assert parts["pairs"].missing.examples == [["y", 1]]
    assert parts["duplicates"].extra.examples == [77]
    assert (parts["parents"].missing.examples, parts["parents"].extra.examples) == (["B"], ["C"])
    assert len(receipt.open()) == 5, receipt.open()


def test_rollback_takes_back_what_was_made(hostile: Move) -> None:
    hostile.run()
    hostile.execute("CREATE VIEW S.mine AS SELECT id FROM S.typed")
    with pytest.raises(GuardError, match="view"):
        hostile.roll_back()
    assert hostile.run("verify").closed
    hostile.execute("DROP VIEW S.mine; CREATE TABLE S.other (a integer)")
    assert hostile.roll_back() == {
        "tables": sorted(t.name for t in SqliteTables(hostile.file).tables()),
        "schema": False,
    }
    assert hostile.execute("SELECT relname FROM pg_class WHERE relnamespace = 'moved'::regnamespace") == [
        {"relname": "other"}
    ]


def test_rollback_keeps_what_was_written_since(made: Callable[[str], Move]) -> None:
    move = made("CREATE TABLE t (a INTEGER PRIMARY KEY); CREATE TABLE u (a)")
    move.run()
    move.execute("INSERT INTO S.t VALUES (1)")
    with pytest.raises(GuardError, match="expected to have the 0 rows of the migration, but has 1"):
        move.roll_back()
    move.execute("DROP TABLE S.t; ALTER TABLE S.u RENAME TO v; CREATE TABLE S.u (a integer)")
    with pytest.raises(GuardError, match="made anew"):
        move.roll_back()


def test_rollback_drops_the_schema_that_it_made(made: Callable[[str], Move]) -> None:
    move = made("CREATE TABLE t (a INTEGER PRIMARY KEY)")
    move.run()
    assert move.roll_back() == {"tables": ["t"], "schema": True}
    assert move.execute("SELECT FROM pg_namespace WHERE nspname = 'moved'") == []


def test_a_duplicate_after_the_migration_leaves_the_books_open(made: Callable[[str], Move]) -> None:
    move = made("CREATE TABLE t (a TEXT UNIQUE); INSERT INTO t VALUES (CAST(x'00' AS TEXT)), (CAST(x'efbfbd' AS TEXT))")
    move.policies = {"nul": "keep"}
    receipt = move.run()
    assert len(move.rows("t")) == 2
    assert any("unique (a)" in reason for reason in receipt.open())


# kill -9


def start(move: Move, *, at: int) -> subprocess.Popen[str]:
    """Migrate in a process that dies at its report of this number; 0 is none of them."""
    program = "import sys; from tests.support.sqlite import main; main(*sys.argv[1:])"
    arguments = [move.owner.conninfo, str(move.file), str(move.folder), move.schema, str(at)]
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def killed(move: Move, at: int) -> str:
    program = start(move, at=at)
    told, complaints = program.communicate(timeout=60)
    assert program.returncode in (0, -9), complaints
    return told


@pytest.mark.slow
def test_killed_at_batch_edges(move: Move) -> None:
    """Each attempt dies behind its first batch, one while it verifies; the last has the same receipt."""
    make_chat(move.file, rows=6_000)
    steps: list[str] = []
    move.report = lambda at: steps.append(at.step)
    expected = lasting(move.run())
    move.roll_back()
    before_loading = steps.index("loading")
    loaded = []
    for _ in range(3):
        assert killed(move, before_loading + 1) == ""
        loaded.append(sum(len(move.rows(part["name"])) for part in expected["parts"]))
    assert loaded == sorted(set(loaded))
    assert killed(move, before_loading + 7) == ""  # it has begun to verify
    assert json.loads(killed(move, len(steps))) == json.loads(json.dumps(expected))


@pytest.mark.slow
def test_killed_at_any_moment(move: Move) -> None:
    make_chat(move.file, rows=6_000)
    expected = lasting(move.run())
    move.roll_back()
    program = start(move, at=0)
    for patience in (0.6, 0.75):
        with suppress(subprocess.TimeoutExpired):
            program.wait(patience)
        program.kill()
        program.communicate()
        program = start(move, at=0)
    assert json.loads(program.communicate(timeout=60)[0]) == json.loads(json.dumps(expected))


# A chat application


def test_chat_application(move: Move) -> None:
    make_chat(move.file, rows=3_000)
    receipt = move.run()
    assert receipt.closed, receipt.open()
    assert all(part.copied == part.records for part in receipt.parts)
    assert receipt.left_out == [] == receipt.warnings
    types = {
        f"{part.name}.{name}": column["type"]
        for part in receipt.parts
        for name, column in part.facts["columns"].items()
    }
    assert types["users.settings"] == "json"
    assert types["messages.cost"] == "numeric(10,6)"
    assert types["messages.created_at"] == "timestamp without time zone"
    assert types["sync_records.synced_at"] == types["usage_logs.at"] == "timestamp with time zone"
    assert types["chat_sessions.archived"] == "boolean"
    with pytest.raises(Exception, match="duplicate key"):
        move.execute("INSERT INTO S.users (email, name) VALUES ('USER1@EXAMPLE.ORG', 'again')")
    (user,) = move.execute("INSERT INTO S.users (email, name) VALUES ('new@example.org', 'new') RETURNING id")
    assert user["id"] > 6
    checks = {part.name: part.checks for part in receipt.parts}
    assert checks["messages"]["foreign key (session_id) to chat_sessions"]["validated"] is True


def test_a_database_without_our_schema(made: Callable[[str], Move], empty_conninfo: str) -> None:
    move = made("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    elsewhere = Move(Database(empty_conninfo), move.file, move.folder, schema='A "schema" é')
    assert elsewhere.run().closed
    assert elsewhere.rows("t", "a") == [(1,)]
    assert elsewhere.roll_back()["schema"]


@pytest.mark.parametrize("schema", ["", "pg_mine", "information_schema", "s" * 64])
def test_schemas_that_cannot_be(made: Callable[[str], Move], schema: str) -> None:
    move = made("CREATE TABLE t (a)")
    with pytest.raises(InvalidInputError, match="name of a schema"):
        Move(move.owner, move.file, move.folder, schema=schema).run()


# The command


@pytest.fixture
def command(move: Move, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Runs `sqlite` with arguments after the file and the schema."""
    app = typer.Typer()
    app.command()(sqlite)
    for name in ("DATABASE_URL", "DATABASE_OWNER_URL"):
        monkeypatch.setenv(name, move.owner.conninfo)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["source.db", "--schema", "moved", *arguments])


def test_exit_codes(command: Callable[..., Any], made: Callable[[str], Move]) -> None:
    assert command().exit_code == 2
    made("CREATE TABLE t (a TEXT); INSERT INTO t VALUES (CAST(x'00' AS TEXT)), ('b')")
    refused = command()
    assert refused.exit_code == 4
    assert "--on KIND=keep" in refused.stderr
    assert command("--dry-run").exit_code == 4
    assert command("--dry-run", "--on", "nul=reject").exit_code == 3
    assert command("--on", "nul=reject").exit_code == 3
    assert command("--verify").exit_code == 3
    assert command("--on", "nul=keep").exit_code == 4
    made("INSERT INTO t VALUES ('c')")
    assert command("--verify").exit_code == 5
    for wrong in (["--on", "nul"], ["--on", "nil=keep"], ["--verify", "--dry-run"], ["--table", "u"]):
        assert command(*wrong).exit_code == 2, wrong
    assert command("--rollback").exit_code == 0
    assert command("--rollback").exit_code == 4
    made("DELETE FROM t WHERE a NOT IN ('b', 'c')")
    assert command().exit_code == 0


def test_json_and_receipt(command: Callable[..., Any], made: Callable[[str], Move], tmp_path: Path) -> None:
    made("CREATE TABLE t (a TEXT); INSERT INTO t VALUES ('b')")
    printed = json.loads(command("--json", "--receipt", "books").stdout)
    assert printed["closed"]
    assert printed["parts"][0]["target"] == "moved.t"
    assert json.loads((tmp_path / "books" / "receipt.json").read_text()) == printed
    assert "The books are closed" in (tmp_path / "books" / "receipt.md").read_text()
    assert printed["rejects"]["lines"] == 0
    assert json.loads(command("--rollback", "--json").stdout) == {"tables": ["t"], "schema": True}
