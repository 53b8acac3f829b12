"""`database backup`, `restore` and `move`, as a user runs them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from database.copies.backup import last_backup
from database.embedded import EmbeddedServer
from tests.acceptance.program import Program
from tests.support.copying import fill
from tests.tcp_server import APPLICATION_PASSWORD, TcpServer


@pytest.fixture
def other(short_folder: Path) -> Iterator[Program]:
    """The program with another home."""
    home = short_folder / f"home-{os.urandom(4).hex()}"
    yield Program(home=home, environment={})
    shutil.rmtree(home, ignore_errors=True)


@pytest.mark.slow
def test_backup_and_restore(program: Program, other: Program, tmp_path: Path) -> None:
    program.json("tenants", "create", "acme")
    done = program.json("database", "backup", tmp_path / "backups", "--keep", 1)
    assert done["tenants"] == ["acme", "default"]
    assert list((tmp_path / "backups").iterdir()) == [Path(done["backup"])]
    noted = last_backup(program.home)
    assert noted is not None
    assert (noted["path"], noted["bytes"]) == (done["backup"], done["bytes"])

    restored = other.json("database", "restore", done["backup"])
    assert restored["differences"] == restored["left_out"] == []
    assert (restored["rows"], restored["replaced"]) == (done["rows"], False)
    assert [tenant["name"] for tenant in other.json("tenants", "list")["tenants"]] == ["acme", "default"]

    refused = other.json("database", "restore", done["backup"], exit_code=4)
    assert "holds data of ours" in refused["error"]["message"]
    assert (
        other.json("database", "restore", done["backup"], "--replace", exit_code=4)["error"]["hint"]
        == "Repeat with --yes."
    )
    text = other.run("database", "restore", done["backup"], "--replace", "--yes")
    assert text.returncode == 0, text.stderr
    assert "all as in the backup" in text.stdout
    nothing = other.json("database", "restore", tmp_path / "nothing", exit_code=2)
    assert "nothing is there" in nothing["error"]["message"]


@pytest.mark.slow
def test_a_difference_is_an_exit_code(program: Program, other: Program, tmp_path: Path) -> None:
    done = program.json("database", "backup", tmp_path)
    manifest = Path(done["backup"]) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"rows": 1,', '"rows": 2,', 1))
    restored = other.json("database", "restore", done["backup"], exit_code=1)
    assert len(restored["differences"]) == 1
    assert other.json("documents", "list", exit_code=1)["error"]["code"] == "schema"


@pytest.mark.slow
def test_move_to_a_server_and_back(program: Program, other: Program, short_folder: Path, tmp_path: Path) -> None:
    server = TcpServer(short_folder / f"tcp-{os.urandom(3).hex()}")
    server.start()
    try:
        program.json("tenants", "create", "acme")
        rehearsed = program.json("database", "move", "--to", server.tcp(), "--dry-run")
        assert (rehearsed["kind"], rehearsed["problems"]) == ("dry run", [])
        text = program.run("database", "move", "--to", server.tcp(), "--receipt", tmp_path / "there", "--freeze")
        assert text.returncode == 0, text.stdout + text.stderr
        assert "The books are closed" in text.stdout
        assert f"DATABASE_URL=postgresql://synapse_app:…@127.0.0.1:{server.port}/synapse" in text.stderr
        assert server.tcp().split("password=")[1].split(" dbname")[0] not in text.stdout + text.stderr
        receipt = json.loads((tmp_path / "there" / "receipt.json").read_text())
        assert receipt["closed"]
        assert (tmp_path / "there" / "receipt.md").read_text().startswith("# Move move-")

        there = replace(
            other,
            environment={
                "DATABASE_URL": server.tcp(user="synapse_app", password=APPLICATION_PASSWORD),
                "DATABASE_OWNER_URL": server.tcp(),
            },
        )
        assert there.json("database", "upgrade")["application_login"] is True
        assert "acme" in json.dumps(there.json("tenants", "list"))
        again = there.json("database", "move", "--to", server.tcp(), exit_code=4)
        assert "the same one" in again["error"]["message"]
        back = there.json("database", "move", "--to", "embedded", "--receipt", tmp_path / "back")
        assert back["closed"]
        assert [part["source_checksum"] for part in back["parts"]] == [
            part["source_checksum"] for part in receipt["parts"]
        ]
        assert "acme" in json.dumps(other.json("tenants", "list"))
    finally:
        server.stop()


@pytest.mark.slow
def test_data_of_an_older_version_is_moved(program: Program, other: Program, tmp_path: Path) -> None:
    old = EmbeddedServer(program.home, major=16)
    old.start()
    with psycopg.connect(old.conninfo(owner=True, dbname="postgres"), autocommit=True) as connection:
        connection.execute("DROP DATABASE synapse")
        connection.execute("CREATE DATABASE synapse")
    fill(old.conninfo(owner=True), tenants=1, rows=20)
    old.stop()
    refused = program.json("database", "status", exit_code=2)
    assert "it is of PostgreSQL 16" in refused["error"]["message"]
    assert f"--from {program.home} --to embedded" in refused["error"]["hint"]

    receipt = other.json("database", "move", "--from", program.home, "--to", "embedded", "--receipt", tmp_path / "r")
    assert receipt["closed"]
    assert receipt["source"]["version"].startswith("16.")
    assert other.json("database", "status")["server_version"].startswith("18.")
    nowhere = other.json("database", "move", "--from", tmp_path, "--to", "embedded", exit_code=2)
    assert "A data folder of PostgreSQL was expected" in nowhere["error"]["message"]
