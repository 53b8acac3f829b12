"""Opening SQLite files: never written, never guessed at; their definitions and expressions."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from database.errors import InvalidInputError
from migration.relational.tables import ForeignKey, Index, IndexPart
from migration.sources.sqlite_expressions import checks, collated, index_parts, is_literal, moment, translate
from migration.sources.sqlite_tables import SqliteTables


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "source ?#%41.db"  # what a URI would take apart


@pytest.fixture
def opened(path: Path) -> Iterator[Callable[[str], SqliteTables]]:
    """The tables of a database that a script makes."""
    sources = []

    def make(script: str) -> SqliteTables:
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(script)
        sources.append(SqliteTables(path))
        return sources[-1]

    yield make
    for source in sources:
        source.close()


def listing(path: Path) -> dict[str, tuple[bytes, int]]:
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in path.parent.iterdir()}


# Files that cannot be read


def test_no_file(tmp_path: Path) -> None:
    for missing, message in ((tmp_path / "no.db", "there is nothing"), (tmp_path, "not a file")):
        with pytest.raises(InvalidInputError, match=message):
            SqliteTables(missing)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"PK\x03\x04", "or encrypted"), (os.urandom(4096), "or encrypted")],
    ids=["empty", "zip", "encrypted"],
)
def test_other_files(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=message):
        SqliteTables(path)


def test_a_database_without_tables(opened: Callable[[str], SqliteTables]) -> None:
    with pytest.raises(InvalidInputError, match="has none"):
        opened("CREATE TABLE t (a); DROP TABLE t")


@pytest.mark.parametrize("place", [30, 4096 + 5, 2 * 4096 + 100])
def test_damaged(opened: Callable[[str], SqliteTables], path: Path, place: int) -> None:
    opened("CREATE TABLE t (a); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5000)"
           " INSERT INTO t SELECT hex(randomblob(20)) FROM n").close()  # fmt: skip
    content = bytearray(path.read_bytes())
    content[place : place + 60] = b"\xff" * 60
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match="damaged"):
        SqliteTables(path)


def test_cut_short(opened: Callable[[str], SqliteTables], path: Path) -> None:
    opened("CREATE TABLE t (a); INSERT INTO t VALUES (zeroblob(100000))").close()
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(InvalidInputError, match="damaged"):
        SqliteTables(path)


def test_values_against_their_checks_are_no_damage(opened: Callable[[str], SqliteTables]) -> None:
    source = opened("CREATE TABLE t (a CHECK (a > 1)); PRAGMA ignore_check_constraints = 1; INSERT INTO t VALUES (0)")
    assert list(source.rows(source.tables()[0])) == [(1, 0)]


# Never written


def test_reading_leaves_everything_as_it_was(opened: Callable[[str], SqliteTables], path: Path) -> None:
    source = opened("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    before = listing(path)
    fingerprint = source.fingerprint()
    list(source.rows(source.tables()[0]))
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        source.connection.execute("INSERT INTO main.t VALUES (2)")
    source.close()
    assert listing(path) == before
    assert source.fingerprint() == fingerprint


def test_what_only_the_write_ahead_log_holds(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.executescript("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (a)")
        writer.execute("INSERT INTO t VALUES ('in the log')")
        before = {name: content for name, content in listing(path).items() if not name.endswith("-shm")}
        assert any(name.endswith("-wal") for name in before)
        source = SqliteTables(path)
        assert list(source.rows(source.tables()[0])) == [(1, "in the log")]
        fingerprint = source.fingerprint()
        source.close()
        assert {name: content for name, content in listing(path).items() if not name.endswith("-shm")} == before
        writer.execute("INSERT INTO t VALUES ('more')")
        assert source.fingerprint() != fingerprint


def test_a_hot_journal_is_rolled_back_in_the_copy(path: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.executescript("CREATE TABLE t (a); INSERT INTO t VALUES ('committed')")
        writer.executescript("PRAGMA cache_size = 1; BEGIN; CREATE TABLE filler (a)")
        writer.execute("INSERT INTO filler VALUES (zeroblob(1000000))")
        writer.execute("UPDATE t SET a = 'not committed'")
        crashed = tmp_path / "crashed" / path.name
        crashed.parent.mkdir()
        for suffix in ("", "-journal"):
            crashed.with_name(crashed.name + suffix).write_bytes(path.with_name(path.name + suffix).read_bytes())
    before = listing(crashed)
    with closing(SqliteTables(crashed)) as source:
        assert [table.name for table in source.tables()] == ["t"]
        assert list(source.rows(source.tables()[0])) == [(1, "committed")]
    assert listing(crashed) == before


# Reflection


def test_texts_keep_their_bytes(opened: Callable[[str], SqliteTables]) -> None:
    source = opened("CREATE TABLE t (a); INSERT INTO t VALUES (CAST(x'61ff00eda080' AS TEXT)), (x'61ff')")
    (_, text), (_, blob) = source.rows(source.tables()[0])
    assert isinstance(text, str)
    assert text.encode("utf-8", "surrogateescape") == b"a\xff\x00\xed\xa0\x80"
    assert blob == b"a\xff"


@pytest.mark.parametrize(
    ("definition", "key", "row_number", "numbered_by"),
    [
        ("a INTEGER PRIMARY KEY", ("a",), "rowid", "a"),
        ("a INT PRIMARY KEY", ("a",), "rowid", None),
        ("a TEXT, b, PRIMARY KEY (b, a)", ("b", "a"), "rowid", None),
        ("rowid TEXT", (), "_rowid_", None),
        ("rowid, _rowid_ INTEGER PRIMARY KEY", ("_rowid_",), "oid", "_rowid_"),
        ("a, b, PRIMARY KEY (a)) WITHOUT ROWID --", ("a",), None, None),
    ],
)
def test_row_numbers(
    opened: Callable[[str], SqliteTables],
    definition: str,
    key: tuple[str, ...],
    row_number: str | None,
    numbered_by: str | None,
) -> None:
    (table,) = opened(
        f"CREATE TABLE t ({definition}\n)" if "--" not in definition else f"CREATE TABLE t ({definition}"
    ).tables()
    assert (table.key, table.row_number, table.numbered_by) == (key, row_number, numbered_by)


def test_rows_go_on_behind_a_position(opened: Callable[[str], SqliteTables]) -> None:
    source = opened(
        "CREATE TABLE a (v); INSERT INTO a (rowid, v) VALUES (-3, 'x'), (5, 'y'), (9, 'z');"
        "CREATE TABLE b (k TEXT PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO b VALUES ('q', 1), ('p', 2), ('r', 3);"
    )
    for table in source.tables():
        rows = list(source.rows(table))
        for place, row in enumerate(rows):
            assert isinstance(row[0], int)
            assert list(source.rows(table, after=row[0])) == rows[place + 1 :]


def test_references_in_other_letters(opened: Callable[[str], SqliteTables]) -> None:
    source = opened(
        'CREATE TABLE "Users" (Id INTEGER PRIMARY KEY, Code TEXT UNIQUE);'
        "CREATE TABLE t (uid REFERENCES USERS, c REFERENCES users (CODE) ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED,"
        " CONSTRAINT named FOREIGN KEY (uid, c) REFERENCES nowhere (x, y));"
    )
    table = source.tables()[1]
    assert table.foreign_keys[0] == ForeignKey(columns=("uid",), table="Users", to_columns=("Id",))
    assert (table.foreign_keys[1].to_columns, table.foreign_keys[1].on_delete) == (("Code",), "SET NULL")
    assert [key.deferred for key in table.foreign_keys] == [False, True, False]
    assert (table.foreign_keys[2].name, table.foreign_keys[2].columns) == ("named", ("uid", "c"))


def test_defaults_are_as_they_would_be_stored(opened: Callable[[str], SqliteTables]) -> None:
    source = opened(
        "CREATE TABLE t (a INTEGER DEFAULT '7', b TEXT DEFAULT 7, c DEFAULT (-1.5), d BOOLEAN DEFAULT TRUE, e DEFAULT NULL,"
        " f DEFAULT x'00', g DEFAULT CURRENT_DATE, h DEFAULT (strftime('%s', 'now')), i DEFAULT (random()));"
        "CREATE TABLE u (a ANY DEFAULT '7') STRICT;"
    )
    defaults = [column.default for column in source.tables()[0].columns]
    assert [default.value if default else None for default in defaults[:6]] == [7, "7", -1.5, 1, None, b"\x00"]
    assert [default.moment if default else None for default in defaults[6:]] == ["date", "unix", None]
    strict = source.tables()[1].columns[0].default
    assert strict is not None
    assert strict.value == "7"


def test_indexes(opened: Callable[[str], SqliteTables]) -> None:
    source = opened(
        "CREATE TABLE t (a TEXT COLLATE NOCASE UNIQUE, b, PRIMARY KEY (b));"
        "CREATE UNIQUE INDEX i ON t (lower(a) DESC, b COLLATE RTRIM) WHERE b > 1 -- or so"
    )
    by_name = {index.name: index for index in source.tables()[0].indexes}
    assert set(by_name) == {"i", "sqlite_autoindex_t_1"}  # not that of the primary key
    assert by_name["sqlite_autoindex_t_1"].parts == (IndexPart(column="a", collation="NOCASE"),)
    assert by_name["i"] == Index(
        name="i",
        unique=True,
        where="b > 1 -- or so",
        parts=(
            IndexPart(column=None, expression="lower(a)", descending=True),
            IndexPart(column="b", collation="RTRIM"),
        ),
    )


# Expressions

TYPES = {"n": "bigint", "word": "text", "Flag": "boolean", "at": "timestamp without time zone"}


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("n > 0", '"n" > 0'),
        ('N == 1 AND "n" != 2', '"n" = 1 AND "n" <> 2'),
        ("word IN ('a', 'it''s')", """("word" COLLATE "C") IN ( 'a' , 'it''s' )"""),
        ('word <> "text"', """("word" COLLATE "C") <> 'text'"""),
        (r"word = 'a\b'", r"""("word" COLLATE "C") = E'a\\b'"""),
        ("flag = 1", '"Flag" = true'),
        ("flag IN (0, 1)", '"Flag" IN ( false , true )'),
        ("flag IS NOT 0", '"Flag" IS NOT false'),
        ("n BETWEEN 0 AND 1", '"n" BETWEEN 0 AND 1'),
        ("length(word) >= 1.5e1 /* long */", 'length ( ("word" COLLATE "C") ) >= 1.5e1'),
        ("at IS NULL OR n * 2 - 1 < 10", '"at" IS NULL OR "n" * 2 - 1 < 10'),
        ("word GLOB 'a*'", None),
        ("word LIKE 'a%'", None),
        ("n / 2 = 1", None),
        ("typeof(n) = 'integer'", None),
        ("word || 'x' = 'ax'", None),
        ("json_valid(word)", None),
        ("unknown > 1", None),
        ("[word] = [text]", None),
        ("n = x'00'", None),
        ("n > 0; DROP TABLE t", None),
        ("", None),
    ],
)
def test_translation(expression: str, said: str | None) -> None:
    assert translate(expression, TYPES) == said


def test_columns_that_fold_letters_are_not_compared() -> None:
    assert translate("word = 'a'", TYPES, collated={"word"}) is None
    assert translate("length(word) = 1", TYPES, collated={"word"}) == 'length ( ("word" COLLATE "C") ) = 1'


def test_checks_are_found() -> None:
    sql = """CREATE TABLE t (a CHECK (a > (1)), "check" TEXT DEFAULT 'CHECK (x)', -- CHECK (y)
             b CONSTRAINT "no b" CHECK(b <> ')'), CHECK (a IN (1, 2)))"""
    assert list(checks(sql)) == [(None, "a > (1)"), ("no b", "b <> ')'"), (None, "a IN (1, 2)")]


def test_small_readers() -> None:
    assert collated("CREATE TABLE t (a TEXT COLLATE nocase, b COLLATE BINARY, c DEFAULT 'COLLATE NOCASE')") == {"a"}
    assert index_parts("CREATE INDEX i ON t (a, f(b, c) DESC, d COLLATE NOCASE) WHERE a > 1") == (
        ["a", "f(b, c)", "d"],
        "a > 1",
    )
    assert index_parts("") == ([], None)
    assert [moment(text) for text in ("current_timestamp", "(DATETIME('now'))", "datetime('now', 'localtime')")] == [
        "timestamp", "timestamp", None
    ]  # fmt: skip
    assert [is_literal(text) for text in ("-1", "'a'", "x'00'", "random()", "1 + 1", "TRUE")] == [
        True, True, True, False, False, True
    ]  # fmt: skip
