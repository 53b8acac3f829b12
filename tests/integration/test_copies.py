"""Backups, restores and moves: everything is the same afterwards, and nothing half-made looks whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from database import schema
from database.connection import Database
from database.copies import backup as backups
from database.copies.backup import Backup, back_up, backups_in
from database.copies.filling import in_parallel
from database.copies.manifest import manifest_path, read_manifest
from database.copies.move import Moved, move, rehearse
from database.copies.programs import installed_programs, programs_for
from database.copies.restore import restore
from database.copies.target import Place
from database.embedded import EmbeddedServer
from database.errors import (
    DatabaseError,
    ExtensionMissingError,
    GuardError,
    InvalidInputError,
    SchemaError,
    SynapseError,
)
from database.tenancy import create_tenant
from tests.conftest import PROJECT
from tests.support.copying import TABLE, catalog, database_name, fill, fresh_database
from tests.tcp_server import OWNER_PASSWORD, TcpServer, drop_roles


@pytest.fixture(scope="module")
def source(owner_conninfo: str) -> Iterator[str]:
    """The owner's connection string of a database that is copied."""
    with fresh_database(owner_conninfo) as conninfo:
        fill(conninfo)
        yield conninfo


@pytest.fixture(scope="module")
def backup(source: str, tmp_path_factory: pytest.TempPathFactory) -> Backup:
    """A backup of it, written by two jobs."""
    return back_up(source, tmp_path_factory.mktemp("backups"), jobs=2)


@pytest.fixture
def target(owner_conninfo: str) -> Iterator[str]:
    """The owner's connection string of an empty database, on the same server."""
    with fresh_database(owner_conninfo) as conninfo:
        yield conninfo


@pytest.fixture
def elsewhere(tcp_server: TcpServer) -> Iterator[str]:
    """The same on another server, with TCP and a password, and none of our roles."""
    with fresh_database(tcp_server.tcp(dbname="postgres")) as conninfo:
        yield conninfo
    with psycopg.connect(tcp_server.tcp(dbname="postgres"), autocommit=True) as connection:
        drop_roles(connection)


def version(conninfo: str) -> str | None:
    with psycopg.connect(conninfo) as connection:
        return schema.current_version(connection)


def test_a_backup_says_what_it_holds(source: str, backup: Backup) -> None:
    manifest = read_manifest(backup.path)
    assert manifest == backup.manifest
    assert manifest.tables[f"tenant_copied_1.{TABLE}"].rows == 60
    assert manifest.tables["public.users"].rows == 6
    assert len(manifest.tables[f"public.{TABLE}"].checksum) == 32
    assert manifest.sizes[f"public.{TABLE}"] > 60 * 384 * 4
    assert set(manifest.roles) >= {"synapse_app", "synapse_tenant", "synapse_tenant_default", "synapse_tenant_copied_0"}
    assert {
        "role": "synapse_tenant_copied_0",
        "member": "synapse_app",
        "inherit": False,
        "set": True,
    } in manifest.memberships
    assert set(manifest.files) == {path.name for path in backup.path.iterdir()} - {"manifest.json"}
    assert not list(backup.path.parent.glob(".*"))
    assert backup.path.stat().st_mode & 0o077 == 0, "a backup holds everything: it is its owner's alone"


def test_restored_elsewhere_everything_is_the_same(source: str, backup: Backup, elsewhere: str) -> None:
    done = restore(backup.path, elsewhere)
    assert done.differences == []
    assert done.left_out == []
    assert "synapse_tenant_copied_1" in done.roles_made
    assert catalog(elsewhere) == catalog(source)

    tenant = Database(elsewhere).for_tenant("copied_1")
    found = tenant.read("SELECT count(*) AS n, sum(length) AS words FROM documents_all_minilm_l6_v2_keywords")
    assert found == Database(source).for_tenant("copied_1").read(
        "SELECT count(*) AS n, sum(length) AS words FROM documents_all_minilm_l6_v2_keywords"
    )
    with psycopg.connect(elsewhere) as connection:
        for member, role, right, expected in (
            ("synapse_app", "synapse_tenant_copied_0", "SET", True),
            ("synapse_app", "synapse_tenant_copied_0", "USAGE", False),
            ("synapse_tenant_copied_0", "synapse_tenant", "USAGE", True),
        ):
            row = connection.execute("SELECT pg_has_role(%s, %s, %s)", (member, role, right)).fetchone()
            assert row == (expected,)
        plan = connection.execute(
            "EXPLAIN SELECT id FROM documents_all_minilm_l6_v2 ORDER BY embedding <=> (SELECT embedding FROM documents_all_minilm_l6_v2 LIMIT 1) LIMIT 3"
        )
        assert plan.fetchall()
        row = connection.execute("SELECT count(*) FROM pg_stats WHERE tablename = %s", (TABLE,)).fetchone()
        assert row is not None
        assert row[0] > 0, "statistics are there at once"
        connection.execute(
            "UPDATE documents_all_minilm_l6_v2 SET content = 'xylophone' WHERE id = 'document 1'"
        )  # the triggers keep the keywords
        row = connection.execute('INSERT INTO public."Odd ""name"" $1" (flag) VALUES (true) RETURNING id').fetchone()
        assert row == (3,), "sequences go on where they were"


@pytest.mark.slow
def test_a_single_file(source: str, tmp_path: Path, target: str) -> None:
    file = tmp_path / "all.dump"
    done = back_up(source, file)
    assert done.path == file
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.dump", "all.dump.json"]
    assert restore(file, target, jobs=1).differences == []
    assert catalog(target) == catalog(source)
    with pytest.raises(GuardError, match="A new file was expected"):
        back_up(source, file)
    with pytest.raises(InvalidInputError, match="--jobs or --keep"):
        back_up(source, tmp_path / "b.dump", jobs=2)


@pytest.mark.slow
def test_only_the_newest_backups_stay(source: str, tmp_path: Path) -> None:
    (tmp_path / "synapse-notes").mkdir()
    (tmp_path / "synapse-20200101T000000Z").mkdir()  # without a manifest it is no backup of ours
    made = [back_up(source, tmp_path, keep=2) for _ in range(3)]
    assert backups_in(tmp_path) == [one.path for one in made[1:]]
    assert made[2].removed == [made[0].path]
    assert (tmp_path / "synapse-notes").is_dir()
    assert (tmp_path / "synapse-20200101T000000Z").is_dir()


def test_a_database_with_contents_is_not_restored_over(backup: Backup, source: str, target: str) -> None:
    with pytest.raises(GuardError, match="holds data of ours"):
        restore(backup.path, source)
    schema.upgrade(target)
    with psycopg.connect(target) as connection:
        connection.execute("INSERT INTO sources SELECT 'all-minilm-l6-v2', 'a.txt', '', 1, 1, 1, '', '', ''")
    with pytest.raises(GuardError, match="holds data of ours"):
        restore(backup.path, target)

    done = restore(backup.path, target, replace=True)
    assert done.replaced
    with psycopg.connect(target) as connection:
        assert connection.execute("SELECT count(*) FROM sources").fetchone() == (0,)
        assert (
            connection.execute("SELECT datname FROM pg_database WHERE datname ~ '_(restoring|replaced)$'").fetchall()
            == []
        )


def test_a_schema_without_contents_is_filled(backup: Backup, source: str, target: str) -> None:
    """As `database upgrade`, `init.sql` and the embedded server leave it."""
    schema.upgrade(target)
    assert restore(backup.path, target).differences == []
    assert catalog(target) == catalog(source)


@pytest.mark.slow
def test_what_is_somebody_elses_stays(backup: Backup, target: str) -> None:
    with psycopg.connect(target, autocommit=True) as connection:
        connection.execute("CREATE TABLE orders (id integer); INSERT INTO orders VALUES (1)")
        connection.execute('CREATE TABLE "Odd ""name"" $1" (id integer)')
        with pytest.raises(GuardError, match="Odd"):
            restore(backup.path, target)
        connection.execute('DROP TABLE "Odd ""name"" $1"')
        assert restore(backup.path, target).differences == []
        assert connection.execute("SELECT id FROM orders").fetchone() == (1,)


@pytest.mark.slow
def test_a_database_in_use_is_not_replaced(backup: Backup, target: str) -> None:
    schema.upgrade(target)
    owner = Database(target)
    create_tenant(owner, "copied_0")
    with owner.connection() as connection:
        connection.execute("SELECT 1")
        with pytest.raises(GuardError, match="somebody is connected"):
            restore(backup.path, target, replace=True)
    assert [row["name"] for row in owner.read("SELECT name FROM tenants ORDER BY name")] == ["copied_0", "default"]
    rest = owner.read("SELECT datname FROM pg_database WHERE datname ~ '_(restoring|replaced)$'")
    owner.close()
    assert rest == []


@pytest.mark.parametrize(
    "how", ["truncated", "missing", "changed", "no manifest", "no JSON", "another format", "not a backup"]
)
def test_a_damaged_backup_is_refused_before_anything_is_touched(
    backup: Backup, target: str, tmp_path: Path, how: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(backup.path, copy)
    largest = max(copy.glob("*.gz"), key=lambda path: path.stat().st_size)
    if how == "truncated":
        largest.write_bytes(largest.read_bytes()[:-100])
    elif how == "missing":
        largest.unlink()
    elif how == "changed":
        data = bytearray(largest.read_bytes())
        data[len(data) // 2] ^= 1
        largest.write_bytes(bytes(data))
    elif how == "no manifest":
        manifest_path(copy).unlink()
    elif how == "no JSON":
        manifest_path(copy).write_text("{")
    elif how == "another format":
        manifest_path(copy).write_text(manifest_path(copy).read_text().replace('"backup": 1', '"backup": 2'))
    else:
        copy = tmp_path / "nothing"
    with pytest.raises(InvalidInputError):
        restore(copy, target)
    assert version(target) is None


def test_a_difference_is_named_and_the_copy_is_not_taken_for_whole(backup: Backup, target: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(backup.path, copy)
    given = json.loads(manifest_path(copy).read_text())
    given["tables"][f"public.{TABLE}"]["checksum"] = "0" * 32
    given["tables"]["public.users"]["rows"] += 1
    manifest_path(copy).write_text(json.dumps(given))

    done = restore(copy, target)
    assert [difference.table for difference in done.differences] == [f"public.{TABLE}", "public.users"]
    assert "6 rows, 7 were expected" in str(done.differences[1])
    assert version(target) == "restoring"
    with pytest.raises(SchemaError):
        schema.require_current(Database(target))
    with pytest.raises(SynapseError):
        schema.upgrade(target)
    with pytest.raises(SchemaError, match="did not end"):
        back_up(target, tmp_path / "of a half")
    assert restore(backup.path, target).differences == [], "the next restore begins again"
    assert version(target) == backup.manifest.schema_version


def test_the_checksum_is_of_contents_and_not_of_their_order(source: str, tmp_path: Path) -> None:
    before = back_up(source, tmp_path).manifest.tables
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute(
            "UPDATE documents_all_minilm_l6_v2 SET content = content WHERE id < 'document 3'"
        )  # elsewhere in the table
        connection.execute("SET TimeZone = 'Asia/Tokyo'")
        assert back_up(source, tmp_path).manifest.tables == before
        connection.execute(
            "UPDATE documents_all_minilm_l6_v2 SET meta = jsonb_set(meta, '{n}', '1.0') WHERE id = 'document 1'"
        )
        after = back_up(source, tmp_path).manifest.tables
        connection.execute(
            "UPDATE documents_all_minilm_l6_v2 SET meta = jsonb_set(meta, '{n}', '1') WHERE id = 'document 1'"
        )
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {f"public.{TABLE}"}


@pytest.mark.slow
def test_moved_there_and_back(source: str, elsewhere: str, target: str) -> None:
    there = move(source, elsewhere, queries=5)
    back = move(elsewhere, target, queries=5)
    for done in (there, back):
        assert done.differences == done.changed == done.left_out == []
        assert done.searches[f"tenant_copied_0.{TABLE}"].overlap == 1.0
        assert done.manifest.tables == there.manifest.tables
    assert catalog(target) == catalog(elsewhere) == catalog(source)


def test_a_rehearsal_writes_nothing(source: str, target: str) -> None:
    assert rehearse(source, target).problems == []
    assert version(target) is None
    assert "same" in rehearse(source, source).problems[0]
    with pytest.raises(GuardError, match="the same one"):
        move(source, make_conninfo(source, application_name="another spelling"))
    with pytest.raises(SchemaError, match="has none"):
        move(target, source)


class Writer(threading.Thread):
    """Somebody who writes one source after the other."""

    def __init__(self, conninfo: str) -> None:
        super().__init__(daemon=True)
        self.conninfo, self.end, self.written, self.longest = conninfo, threading.Event(), 0, 0.0

    def run(self) -> None:
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            while not self.end.is_set():
                began = time.monotonic()
                connection.execute("INSERT INTO public.untold VALUES (1)")
                self.written += 1
                self.longest = max(self.longest, time.monotonic() - began)
                self.end.wait(0.02)


@pytest.mark.slow
def test_writes_meanwhile_are_noticed_or_held_off(source: str, owner_conninfo: str, target: str) -> None:
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.untold (n integer)")
        try:
            writer = Writer(source)
            writer.start()
            done = move(source, target, queries=0)
            writer.end.set()
            writer.join()
            assert [difference.table for difference in done.changed] == ["public.untold"]
            assert done.differences == [], "the copy is of one moment all the same"

            with fresh_database(owner_conninfo) as another:
                writer = Writer(source)
                writer.start()
                frozen = _seconds_frozen(lambda: move(source, another, queries=0, freeze=True))
                writer.end.set()
                writer.join()
                with psycopg.connect(another) as copy:
                    row = copy.execute("SELECT count(*) FROM public.untold").fetchone()
                total = connection.execute("SELECT count(*) FROM public.untold").fetchone()
            assert row is not None
            assert total is not None
            assert 0 < row[0] < total[0], "what was written after they had waited is not in the copy"
            assert writer.longest > frozen / 4, "writers wait"
        finally:
            connection.execute("DROP TABLE public.untold")


def _seconds_frozen(work: Any) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def test_a_writer_who_does_not_end(source: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("database.copies.source.LOCK_PATIENCE", "200ms")
    with psycopg.connect(source) as writer:
        writer.execute("INSERT INTO users (tenant, name) VALUES ('default', 'late')")
        with pytest.raises(GuardError, match="still at work"):
            move(source, target, freeze=True)
        writer.rollback()
    assert version(target) is None


@pytest.mark.slow
def test_an_owner_whom_policies_bind(
    source: str, elsewhere: str, owner_conninfo: str, tmp_path: Path, target: str
) -> None:
    """As on a managed server: no superuser, no BYPASSRLS; each tenant's users are seen by its role alone."""
    role, password = "o'wner \"$HOME", "p'a$$ \"w\\ö:@/"
    name = database_name(elsewhere)
    with psycopg.connect(elsewhere, autocommit=True) as admin:
        admin.execute("CREATE EXTENSION vector")
        create = psycopg.sql.SQL("CREATE ROLE {} LOGIN CREATEROLE CREATEDB PASSWORD {}")
        admin.execute(create.format(psycopg.sql.Identifier(role), password))
        admin.execute(
            psycopg.sql.SQL("ALTER DATABASE {} OWNER TO {}").format(
                psycopg.sql.Identifier(name), psycopg.sql.Identifier(role)
            )
        )
        admin.execute(psycopg.sql.SQL("ALTER SCHEMA public OWNER TO {}").format(psycopg.sql.Identifier(role)))
    managed = make_conninfo(elsewhere, user=role, password=password)
    try:
        assert move(source, managed, queries=2).differences == []
        made = back_up(managed, tmp_path, jobs=2)
        assert made.manifest.tables["public.users"].rows == 6
        assert "public.users" in made.manifest.shared_rows.values()
        assert restore(made.path, target).differences == []
        assert catalog(target)["policies"] == catalog(source)["policies"]
        with pytest.raises(InvalidInputError, match="files of their own"):
            back_up(managed, tmp_path / "one.dump")
        with pytest.raises(
            ExtensionMissingError, match="may not install it"
        ):  # in this package it is not a trusted one
            restore(made.path, managed, replace=True)
        assert version(managed) == schema.SCHEMA_VERSION
    finally:
        with psycopg.connect(make_conninfo(elsewhere, dbname="postgres"), autocommit=True) as admin:
            admin.execute(psycopg.sql.SQL("DROP DATABASE {} WITH (FORCE)").format(psycopg.sql.Identifier(name)))
            admin.execute(psycopg.sql.SQL("DROP OWNED BY {}").format(psycopg.sql.Identifier(role)))
            drop_roles(admin)
            admin.execute(psycopg.sql.SQL("DROP ROLE {}").format(psycopg.sql.Identifier(role)))


@pytest.mark.slow
def test_rights_of_roles_that_are_not_there_are_named(source: str, elsewhere: str) -> None:
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute("CREATE ROLE reporting; GRANT SELECT ON public.tenants TO reporting")
        try:
            done = move(source, elsewhere, queries=0)
        finally:
            connection.execute("DROP OWNED BY reporting; DROP ROLE reporting")
    assert done.left_out == [{"name": "acl TABLE tenants", "reason": "there is no role reporting"}]
    assert done.differences == []


@pytest.mark.slow
def test_rights_that_a_host_gives_away_are_taken_back(source: str, elsewhere: str) -> None:
    """As Supabase gives its API's roles every new table of public."""
    with psycopg.connect(elsewhere, autocommit=True) as connection:
        connection.execute("CREATE ROLE anon; ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO anon")
        try:
            assert move(source, elsewhere, queries=0).differences == []
            rights = connection.execute(
                "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')"
                " AND has_table_privilege('anon', oid, 'SELECT')"
            ).fetchall()
        finally:
            connection.execute("DROP OWNED BY anon; DROP ROLE anon")
    assert rights == []


@pytest.mark.slow
def test_an_extension_in_a_schema_of_its_own(source: str, target: str) -> None:
    """Supabase keeps them in `extensions`; what is dumped names the type by its schema."""
    with psycopg.connect(target, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA extensions; CREATE EXTENSION vector SCHEMA extensions")
        assert move(source, target, queries=2).differences == []
        row = connection.execute(
            "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'vector'"
        ).fetchone()
    assert row == ("public",)


@pytest.mark.slow
def test_passwords_are_in_no_argument_and_no_message(source: str, elsewhere: str, tmp_path: Path) -> None:
    move(source, elsewhere, queries=0)
    seen: list[str] = []
    done = threading.Event()

    def watch() -> None:
        import psutil

        while not done.is_set():
            for child in psutil.Process().children(recursive=True):
                try:
                    seen.append(" ".join(child.cmdline()))
                except psutil.Error:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    made = back_up(elsewhere, tmp_path)
    done.set()
    watcher.join()
    assert any("pg_dump" in line for line in seen)
    assert not any(OWNER_PASSWORD in line for line in seen)
    assert OWNER_PASSWORD not in manifest_path(made.path).read_text()
    with pytest.raises(DatabaseError) as caught:
        back_up(make_conninfo(elsewhere, password="wr0ng'pw"), tmp_path)
    assert "wr0ng" not in str(caught.value)


def test_the_application_cannot_copy(server: EmbeddedServer | None, source: str, target: str, tmp_path: Path) -> None:
    if server is None:
        pytest.skip("the application logs in to the embedded server alone")
    application = server.conninfo(dbname=database_name(source))
    with pytest.raises(DatabaseError):
        back_up(application, tmp_path)
    with pytest.raises(DatabaseError):
        move(application, target)
    assert list(tmp_path.iterdir()) == []
    assert version(target) is None


def test_programs_that_are_missing_are_named() -> None:
    assert {18, 16} <= {programs.major for programs in installed_programs()}
    assert programs_for(16, why="the server").major == 16
    assert programs_for(17, why="the server").major == 18
    with pytest.raises(
        DatabaseError, match="PostgreSQL 99 or later were expected, as the server of x has that version"
    ):
        programs_for(99, why="the server of x")


def test_a_disk_that_is_full(source: str, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", small], check=False).returncode
    ):
        pytest.skip("only root may make a small file system")
    try:
        with pytest.raises((DatabaseError, OSError), match="No space left"):
            back_up(source, small)
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_an_error_ends_what_the_others_are_at(target: str) -> None:
    place = Place(conninfo=target, name="a test")

    def work(item: str) -> None:
        if item == "fails":
            raise ValueError(item)
        with place.connection() as connection:
            connection.execute("SELECT pg_sleep(60)")

    began = time.monotonic()
    with pytest.raises(ValueError, match="fails"):
        in_parallel(work, ["sleeps", "fails"], jobs=2, interrupt=lambda: (time.sleep(0.3), place.interrupt())[1])
    assert time.monotonic() - began < 20
    assert place.busy == place.idle == []


KILLED = """
import sys, time
from pathlib import Path
from database.copies import backup, filling, restore
from database.copies.progress import Progress
what, conninfo, path, stage = sys.argv[1:]
def stop_at(progress):
    if progress.step.startswith(stage) and (progress.done or stage != "backing up"):
        print("there", flush=True)
        time.sleep(60)
if what == "backup":
    backup.back_up(conninfo, Path(path), on_progress=stop_at)
else:
    restore.restore(Path(path), conninfo, replace=what == "replace", on_progress=stop_at)
"""


def killed(what: str, conninfo: str, path: Path, stage: str) -> None:
    """Run it in a process of its own, and kill that with the first sign of a stage."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, what, conninfo, str(path), stage], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    process.kill()
    process.communicate()


def test_a_backup_that_was_killed_is_not_there(source: str, tmp_path: Path) -> None:
    killed("backup", source, tmp_path, "backing up")
    assert backups_in(tmp_path) == []
    assert len(list(tmp_path.iterdir())) == 1, "what it left has a name that no backup has"
    time.sleep(0.5)  # its pg_dump ends by itself
    made = back_up(source, tmp_path)
    assert list(tmp_path.iterdir()) == [made.path]
    assert backups._BACKUP.fullmatch(made.path.name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "stage", ["making tables", "copying", "building indexes", "collecting statistics", "comparing"]
)
@pytest.mark.parametrize("what", ["restore", "replace"])
def test_a_restore_that_was_killed_begins_again(
    backup: Backup, source: str, target: str, what: str, stage: str
) -> None:
    if what == "replace":
        schema.upgrade(target)
        with psycopg.connect(target) as connection:
            connection.execute("INSERT INTO users (tenant, name) VALUES ('default', 'kept')")
    killed(what, target, backup.path, stage)
    if what == "replace":
        assert version(target) == schema.SCHEMA_VERSION
        with psycopg.connect(target) as connection:
            assert connection.execute("SELECT name FROM users").fetchone() == ("kept",)
    else:
        assert version(target) in (None, "restoring")
    deadline = time.monotonic() + 10
    while True:  # until the server has noticed that nobody listens
        try:
            done = restore(backup.path, target, replace=what == "replace")
            break
        except GuardError:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert done.differences == []
    assert catalog(target) == catalog(source)


@pytest.mark.slow
def test_twenty_tenants_and_none(owner_conninfo: str, target: str, tmp_path: Path) -> None:
    for tenants in (20, 0):
        with fresh_database(owner_conninfo) as conninfo:
            fill(conninfo, tenants=tenants, rows=3 if tenants else 0)
            made = back_up(conninfo, tmp_path, jobs=2)
            assert len(made.manifest.tenants) == tenants + 1
            done: Any = restore(made.path, target, replace=True)
            assert done.differences == []
            assert catalog(target) == catalog(conninfo)
            moved: Moved = move(conninfo, target, replace=True, queries=1)
            assert moved.differences == moved.changed == []
