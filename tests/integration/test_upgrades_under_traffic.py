"""Programs of every version at work while the schema goes from its first version to the last, and back again."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest
from haystack.utils import Secret

from database import schema
from database.document_store import SynapseDocumentStore
from database.embedded import APPLICATION_ROLE
from database.online import SchemaProgress
from tests.support.schema_versions import TABLE, catalog, checksum, fill, require_keywords
from tests.support.traffic import Client, Report, Traffic
from tests.tcp_server import APPLICATION_PASSWORD, TcpServer, drop_roles

pytestmark = pytest.mark.slow

ROLE = "synapse_tenant_default"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A database at the first version, and who works on it."""

    owner: str
    application: str

    def old(self) -> list[Client]:
        """Programs from before tenants."""
        return [Client(conninfo=self.application), Client(conninfo=self.owner)]

    def new(self) -> list[Client]:
        """Programs that take the role of a tenant."""
        return [Client(conninfo=self.application, role=ROLE)]


class InEveryVersion:
    """Lets the traffic go on for a moment at the first step of each version, and at each step of an index."""

    def __init__(self, traffic: Traffic, *, writes: int) -> None:
        self.traffic, self.writes = traffic, writes
        self.versions: list[str] = []

    def __call__(self, step: SchemaProgress) -> None:
        if step.version and step.version not in self.versions:
            self.versions.append(step.version)
            self.traffic.wait(reads=self.traffic.reads + 3 * self.writes, writes=self.traffic.writes + self.writes)


def require_unharmed(report: Report, *, worst: float) -> None:
    """Nothing failed or is lost, and nobody waited for longer than so many ms."""
    assert report.failures == {}
    assert report.wrong == []
    assert report.uncertain == 0
    assert max(report.writes.worst, report.reads.worst) < worst, report


def up_and_down(place: Place, *, documents: int, writes: int, worst: float) -> None:
    """From the first version to the last under traffic, down again, and up again."""
    with psycopg.connect(place.owner, autocommit=True) as connection:
        fill(connection, documents)
        before = checksum(connection)
        with Traffic(readers=place.old(), writers=place.old(), pause=0.004, seed=1) as traffic:
            done = schema.upgrade(place.owner, on_progress=(stages := InEveryVersion(traffic, writes=writes)))
            traffic.wait(writes=traffic.writes + writes)
        assert (done.before, done.after, done.old_programs) == ("0001", schema.SCHEMA_VERSION, True)
        assert stages.versions == ["0002", "0003", "0004", "0005", "0006"]
        require_unharmed(traffic.report(), worst=worst)
        assert checksum(connection) == before
        require_keywords(connection)

        store = SynapseDocumentStore(connection_string=Secret.from_token(place.application))
        try:
            searches = [lambda vector: len(store.dense_search(vector, top_k=10))]
            writers = [*place.new(), *place.old()]
            with Traffic(readers=place.new(), writers=writers, searches=searches, pause=0.004, seed=2) as traffic:
                back = InEveryVersion(traffic, writes=writes)
                for version in ("0005", "0004", "0003", "0002", "0001"):
                    schema.downgrade(place.owner, version, yes=True, on_progress=back)
                again = schema.upgrade(place.owner, on_progress=InEveryVersion(traffic, writes=writes))
                traffic.wait(writes=traffic.writes + writes)
        finally:
            store.close()
        assert back.versions == ["0006", "0005", "0004", "0003", "0002"]
        assert again.old_programs
        require_unharmed(traffic.report(), worst=worst)
        assert checksum(connection) == before
        require_keywords(connection)

        with Traffic(readers=place.new(), writers=place.new(), pause=0.004, seed=3) as traffic:
            assert not schema.upgrade(place.owner, finish=True).old_programs
            traffic.wait(writes=writes)
        require_unharmed(traffic.report(), worst=worst)
        with pytest.raises(psycopg.errors.InsufficientPrivilege), psycopg.connect(place.application) as old:
            old.execute(f"SELECT count(*) FROM {TABLE}")  # noqa: S608


def test_nobody_notices(empty_conninfo: str) -> None:
    application = psycopg.conninfo.make_conninfo(empty_conninfo, user=APPLICATION_ROLE)
    up_and_down(Place(owner=empty_conninfo, application=application), documents=300, writes=5, worst=5000)


@pytest.fixture
def managed(tcp_server: TcpServer) -> Iterator[Place]:
    """On a server that knows no role of ours; the owner is no superuser, and policies bind it."""
    name = "managed_traffic"
    with psycopg.connect(tcp_server.tcp(dbname="postgres"), autocommit=True) as admin:
        admin.execute("CREATE ROLE managed LOGIN PASSWORD 'pw' CREATEROLE")
        admin.execute(f"CREATE DATABASE {name} OWNER managed")
        with psycopg.connect(tcp_server.tcp(dbname=name), autocommit=True) as inside:
            inside.execute("CREATE EXTENSION vector")
            inside.execute("ALTER SCHEMA public OWNER TO managed")
            inside.execute("SET ROLE managed")
            inside.execute("CREATE ROLE synapse_app NOSUPERUSER NOCREATEDB NOCREATEROLE")
        owner = tcp_server.tcp(user="managed", password="pw", dbname=name)
        application = tcp_server.tcp(user=APPLICATION_ROLE, password=APPLICATION_PASSWORD, dbname=name)
        schema.grant_login(owner, application_conninfo=application)
        yield Place(owner=owner, application=application)
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        drop_roles(admin)
        admin.execute("DROP ROLE managed")


def test_nobody_notices_on_a_managed_server(managed: Place) -> None:
    up_and_down(managed, documents=2000, writes=25, worst=2000)


def test_who_holds_a_table_stops_nobody_else(empty_conninfo: str) -> None:
    """A step that waits for a long transaction lets those behind it pass."""
    with psycopg.connect(empty_conninfo, autocommit=True) as connection:
        fill(connection, 50)
    waited: set[str] = set()

    def watch(step: SchemaProgress) -> None:
        if step.waiting_for:
            waited.add(step.waiting_for)
            if time.monotonic() > began + 1.5:
                holder.rollback()

    client = Client(conninfo=empty_conninfo)
    with (
        psycopg.connect(empty_conninfo, application_name="a long report") as holder,
        Traffic(readers=[client], writers=[client], pause=0.004) as traffic,
    ):
        holder.execute(f"SELECT FROM {TABLE} LIMIT 1 FOR UPDATE")
        traffic.wait(reads=5, writes=5)
        began = time.monotonic()
        schema.upgrade(empty_conninfo, on_progress=watch)
    assert any("a long report, in a transaction for" in who for who in waited), waited
    require_unharmed(traffic.report(), worst=1200)


def test_batches_wait_for_no_writer_and_lose_none(empty_conninfo: str) -> None:
    """Documents that change, move and go while they are filed are each filed as they are in the end."""
    with psycopg.connect(empty_conninfo, autocommit=True) as connection:
        fill(connection, 400)
        changes = itertools.cycle(
            [
                f"UPDATE {TABLE} SET content = content || ' glacier' WHERE id LIKE '%%{{n}}'",  # noqa: S608
                f"DELETE FROM {TABLE} WHERE id LIKE '%%0{{n}}'",  # noqa: S608
                f"UPDATE {TABLE} SET id = 'moved/' || id WHERE id LIKE 'base/%%5{{n}}'",  # noqa: S608
                f"INSERT INTO {TABLE} (id, content) VALUES ('base/0000{{n}}x', 'lantern') ON CONFLICT DO NOTHING",  # noqa: S608
            ]
        )
        with psycopg.connect(empty_conninfo) as writer:

            def change(step: SchemaProgress) -> None:
                if step.waiting_for:
                    writer.commit()
                elif step.step.startswith("keywords of"):
                    writer.execute(next(changes).format(n=step.done % 10))
                    if step.done % 2:
                        writer.commit()

            schema.upgrade(empty_conninfo, on_progress=change)
            writer.commit()
        require_keywords(connection)
        assert catalog(connection)["version"] == [f"('{schema.SCHEMA_VERSION}',)"]
