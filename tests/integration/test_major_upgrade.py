"""From PostgreSQL 16 to 18: by dump and by pg_upgrade, with checksums and searches compared before and after."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from database.connection import Database
from database.copies.filling import differences
from database.copies.inventory import Inventory, Sum
from database.copies.move import move, sums_of
from database.copies.parity import compare_searches
from database.copies.progress import silent
from database.copies.source import snapshot
from database.embedded import DATABASE, MAJOR, PROGRAMS, EmbeddedServer
from database.errors import ConfigurationError
from tests.support.copying import TABLE, catalog, fill
from tests.support.pg_upgrade import run_pg_upgrade
from tests.tcp_server import TcpServer

OLD, ROWS = 16, 1000


@pytest.fixture
def home(short_folder: Path) -> Iterator[Path]:
    """A folder for servers of a test."""
    folder = short_folder / f"upgrade-{os.urandom(3).hex()}"
    folder.mkdir(mode=0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def refusal(server: EmbeddedServer) -> ConfigurationError:
    """Why a server does not start."""
    try:
        with pytest.raises(ConfigurationError) as caught:
            server.start()
    finally:
        server.stop()
    return caught.value


def test_data_of_another_major_version_is_refused(home: Path) -> None:
    old = EmbeddedServer(home, major=OLD, keeps_schema=True)
    old.start()
    with psycopg.connect(old.conninfo(owner=True, dbname="postgres")) as connection:
        assert connection.info.server_version // 10000 == OLD
    assert old.stop()
    error = refusal(EmbeddedServer(home))
    assert error.message == f"Data of PostgreSQL {MAJOR} was expected in {old.data}, but it is of PostgreSQL {OLD}."
    assert f"database move --from {home} --to embedded" in error.hint
    assert old.start(), "nothing has happened to it"
    assert old.stop()


def test_data_of_an_unknown_version_is_refused(home: Path) -> None:
    server = EmbeddedServer(home, keeps_schema=True)
    server.start()
    server.stop()
    (server.data / "PG_VERSION").write_text("27\n")
    error = refusal(EmbeddedServer(home))
    assert "of PostgreSQL 27" in error.message
    assert "Use the version of Synapse that made it" in error.hint


def contents(conninfo: str) -> tuple[dict[str, Sum], Inventory]:
    """Rows and checksums of every table."""
    with snapshot(conninfo) as source:
        return sums_of(source, jobs=1, on_progress=silent, step="reading"), source.inventory


@pytest.mark.slow
def test_by_dump(home: Path) -> None:
    old, new = TcpServer(home / "16", major=OLD), TcpServer(home / "18")
    for server in (old, new):
        server.start()
    try:
        fill(old.tcp(), tenants=2, rows=ROWS)
        done = move(old.tcp(), new.tcp(), queries=50)
        assert done.manifest.server_version.startswith("16.")
        assert done.target_facts["server_version"].startswith("18.")
        assert done.differences == done.changed == done.left_out == []
        places = ("public", "tenant_copied_0", "tenant_copied_1")
        assert set(done.searches) == {*(f"{place}.{TABLE}" for place in places), "public.documents_cut"}
        for name, parity in done.searches.items():
            assert parity.queries == (20 if name.endswith("cut") else 50)
            assert parity.overlap == 1.0
            assert parity.recall_after > 0.95
        assert same_catalog(catalog(new.tcp()), catalog(old.tcp()))
        assert words_found(new.tcp()) == words_found(old.tcp())

        back = move(new.tcp(), old.tcp(), replace=True, queries=5)  # a host may offer only an earlier version
        assert back.differences == back.left_out == []
        assert back.target_facts["server_version"].startswith("16.")
        assert contents(old.tcp())[0] == contents(new.tcp())[0]
    finally:
        old.stop()
        new.stop()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["copy", "link"])
def test_by_pg_upgrade(home: Path, way: str) -> None:
    old = EmbeddedServer(home / "16", major=OLD, settings={"fsync": "off"})
    old.start()
    fill(old.conninfo(owner=True), tenants=1, rows=ROWS)
    with psycopg.connect(old.conninfo(owner=True), autocommit=True) as connection:
        connection.execute("ANALYZE")
    before, inventory = contents(old.conninfo(owner=True))
    expected, words = catalog(old.conninfo(owner=True)), words_found(old.conninfo(owner=True))
    with psycopg.connect(old.conninfo(owner=True)) as connection:
        nearest = found_by_index(connection)
    old.stop()

    new = EmbeddedServer(home / "18", settings={"fsync": "off"}, keeps_schema=True)
    run_pg_upgrade(old, new, home, link=way == "link")
    new.start()
    try:
        after, _ = contents(new.conninfo(owner=True))
        assert differences(before, after) == []
        assert same_catalog(catalog(new.conninfo(owner=True)), expected)
        assert words_found(new.conninfo(owner=True)) == words
        with psycopg.connect(new.conninfo(owner=True)) as connection:
            assert connection.info.server_version // 10000 == MAJOR
            assert found_by_index(connection) == nearest, "the index came along as it was: nothing is to be built again"
            row = connection.execute("SELECT count(*) FROM pg_stats WHERE tablename = %s", (TABLE,)).fetchone()
            assert row is not None
            assert row[0] > 0, "PostgreSQL 18 takes the statistics along"
            row = connection.execute("SELECT count(*) FROM pg_index WHERE NOT indisvalid").fetchone()
            assert row == (0,)
            parity = compare_searches(connection, connection, inventory, queries=20, on_progress=silent)
            assert all(one.passed and one.recall_after > 0.95 for one in parity.values())
        application = Database(new.conninfo()).for_tenant("copied_0")
        rows: Any = application.read(f"SELECT count(*) AS n FROM {TABLE}")  # noqa: S608
        application.close()
        assert rows == [{"n": ROWS}], "roles, memberships and logins came along"
    finally:
        new.stop()


def found_by_index(connection: psycopg.Connection[Any]) -> list[list[str]]:
    """What the HNSW index returns for some of the vectors: an index that was built again may return others."""
    connection.execute("SET enable_seqscan = off; SET hnsw.ef_search = 20")
    query = "SELECT id FROM documents_all_minilm_l6_v2 ORDER BY embedding <=> (SELECT embedding FROM documents_all_minilm_l6_v2 WHERE id = %s) LIMIT 10"
    return [[row[0] for row in connection.execute(query, (f"document {n}",))] for n in range(1, 30)]


def words_found(conninfo: str) -> list[Any]:
    """What the keyword tables hold, and what the server's own text search makes of a text: stems may differ between versions."""
    with psycopg.connect(conninfo) as connection:
        return connection.execute(
            "SELECT (SELECT count(*) FROM documents_all_minilm_l6_v2_terms),"
            " to_tsvector('english', 'running houses were indexed beautifully by its owners'), synapse_number('1.5'::jsonb)"
        ).fetchall()


def same_catalog(found: dict[str, list[Any]], expected: dict[str, list[Any]]) -> bool:
    """Compared part by part, so that a difference is shown small."""
    for part in expected:
        assert found[part] == expected[part], part
    return True


def test_the_package_has_both() -> None:
    assert set(PROGRAMS) == {OLD, MAJOR}
    assert DATABASE == "synapse"
