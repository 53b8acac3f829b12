"""Rebuilding an index: nobody waits, nothing is lost, and what a stopped run leaves is cleared away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psycopg
import pytest
from haystack import Document
from haystack.utils import Secret

from database.bulk_load import load_documents
from database.connection import Database
from database.document_store import SynapseDocumentStore
from database.embedded import EmbeddedServer
from database.errors import GuardError, InvalidInputError, SchemaError
from database.index_definition import Wanted
from database.metadata_fields import declare_field, drop_field
from database.models import active_model
from database.reindex import BuildProgress, Rebuild, leftovers, reindex, require_session
from tests.conftest import PROJECT
from tests.support.pgbouncer import pooled
from tests.support.traffic import Client, Traffic
from tests.tcp_server import TcpServer

pytestmark = pytest.mark.slow

TABLE, DIMENSION = "documents_all_minilm_l6_v2", 384
INDEX = f"{TABLE}_hnsw_index"
STOPPED = """
import sys
from database.connection import Database
from database.index_definition import Wanted
from database.reindex import reindex

def seen(step):
    if step.phase.endswith(sys.argv[2]) and (step.done > 0 or step.phase == "settling"):
        print("ready", flush=True)

wanted = Wanted(half=True) if sys.argv[2] == "settling" else Wanted(m=100, ef_construction=1000)  # slow enough to be seen
reindex(Database(sys.argv[1]), sys.argv[3], wanted=wanted, settle=60, workers=0, progress=seen)
"""


@pytest.fixture
def store(database: Database, owner: Database, owner_conninfo: str) -> Iterator[SynapseDocumentStore]:
    made = np.random.default_rng(0).normal(size=(2000, DIMENSION))
    store = SynapseDocumentStore(connection_string=Secret.from_token(owner_conninfo))
    store.write_documents(
        [
            Document(id=str(n), content=f"word{n % 9}", embedding=row.tolist(), meta={"n": n})
            for n, row in enumerate(made)
        ]
    )
    yield store
    database_is_as_new(owner)


def database_is_as_new(owner: Database) -> None:
    with owner.connection() as connection:
        connection.execute(f"TRUNCATE {TABLE}")
    reindex(owner, TABLE, wanted=Wanted(method="hnsw", half=False, m=8, ef_construction=48), settle=0)


def definition(owner: Database) -> str:
    (row,) = owner.read("SELECT pg_get_indexdef(%s::regclass) AS it", [INDEX])
    return str(row["it"])


def names(owner: Database) -> set[str]:
    rows = owner.read(
        "SELECT c.relname FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE indrelid = %s::regclass", [TABLE]
    )
    return {row["relname"] for row in rows}


@pytest.mark.parametrize(
    "wanted", [Wanted(m=12), Wanted(half=True), Wanted(method="ivfflat")], ids=["m", "half", "ivf"]
)
def test_nobody_waits_while_an_index_is_rebuilt(
    owner: Database, store: SynapseDocumentStore, server: EmbeddedServer | None, owner_conninfo: str, wanted: Wanted
) -> None:
    application = server.conninfo() if server else owner_conninfo
    client = Client(conninfo=application, role="synapse_tenant_default" if server else None)
    other = SynapseDocumentStore(connection_string=Secret.from_token(application))
    searches = [lambda query: len(other.dense_search(query)), lambda query: len(other.hybrid_search("river", query))]
    with Traffic(readers=[client], writers=[client, client], searches=searches, pause=0.005) as traffic:
        traffic.wait(reads=50, writes=20)
        before = traffic.reads, traffic.writes
        done = reindex(owner, TABLE, wanted=wanted, settle=1.0)
        during = traffic.reads - before[0], traffic.writes - before[1]
        traffic.wait(reads=traffic.reads + 50, writes=traffic.writes + 20)
    report = traffic.report()
    assert (report.failures, report.wrong) == ({}, [])
    assert min(during) > 10
    assert report.writes.worst < 1000
    assert report.reads.worst < 1000
    assert names(owner) == {INDEX, f"{TABLE}_pkey"}
    assert done.definition == definition(owner)
    with owner.connection() as connection:
        connection.execute("DELETE FROM sources")


def test_a_build_is_better_than_inserts_will_be(owner: Database, store: SynapseDocumentStore) -> None:
    done = reindex(owner, TABLE)
    assert "ef_construction='48'" in done.definition
    assert done.bytes_after > 0
    assert done.rows == 2000


@pytest.mark.parametrize("phase", ["loading tuples", "settling"])
def test_a_killed_run_leaves_a_serving_index_and_the_next_clears_up(
    owner: Database, store: SynapseDocumentStore, owner_conninfo: str, phase: str
) -> None:
    before = definition(owner)
    command = [sys.executable, "-c", STOPPED, owner_conninfo, phase, TABLE]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, env=os.environ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with pytest.raises(GuardError, match="by another process"):
            reindex(owner, TABLE)
        process.send_signal(signal.SIGKILL)
    assert (definition(owner) == before) == (phase == "loading tuples")
    assert len(store.dense_search([0.1] * DIMENSION)) == 10
    done = reindex(owner, TABLE, wanted=Wanted(half=False, m=8, ef_construction=48), settle=0)
    assert done.cleared == [f"{INDEX}_synapse_{'new' if phase == 'loading tuples' else 'old'}"]
    assert names(owner) == {INDEX, f"{TABLE}_pkey"}


def test_whoever_interrupts_it_leaves_nothing(owner: Database, store: SynapseDocumentStore) -> None:
    before = definition(owner)

    def interrupt(step: BuildProgress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reindex(owner, TABLE, wanted=Wanted(m=48, ef_construction=800), workers=0, progress=interrupt)
    assert leftovers(owner, TABLE) == []
    assert definition(owner) == before


def test_whom_it_waits_for_is_named(owner: Database, store: SynapseDocumentStore, owner_conninfo: str) -> None:
    seen: list[BuildProgress] = []
    with psycopg.connect(owner_conninfo, application_name="somebody") as other:
        other.execute(f"LOCK TABLE {TABLE} IN ROW EXCLUSIVE MODE")

        def report(step: BuildProgress) -> None:
            seen.append(step)
            if step.waits_for:
                other.rollback()

        reindex(owner, TABLE, progress=report)
        waits = [one for step in seen for one in step.waits_for]
        assert {one.pid for one in waits} == {other.info.backend_pid}
        assert {one.application for one in waits} == {"somebody"}
        assert waits[0].since is not None


def test_invalid_indexes_are_cleared_or_built_again(owner: Database, store: SynapseDocumentStore) -> None:
    field = declare_field(owner, TABLE, "n", "number")
    broken = [field.index_name, f"{TABLE}_keywords_terms", "theirs_ccnew"]
    with owner.connection() as connection:
        connection.execute(f"CREATE INDEX theirs_ccnew ON {TABLE} (content)")
        connection.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = ANY(%s::text[]::regclass[])", [broken]
        )
    assert leftovers(owner, TABLE) == ["theirs_ccnew"]
    done = reindex(owner, TABLE)
    assert done.cleared == ["theirs_ccnew"]
    assert set(done.mended) == set(broken[:2])
    assert owner.read("SELECT 1 FROM pg_index WHERE NOT indisvalid") == []
    drop_field(owner, TABLE, "n")


def test_another_index_as_it_is(owner: Database, store: SynapseDocumentStore) -> None:
    done = reindex(owner, TABLE, index=f"{TABLE}_keywords_terms")
    assert "gin_pending_list_limit='1024'" in done.definition
    assert len(store.keyword_search("word3")) == 10
    assert reindex(owner, TABLE, index=f"{TABLE}_pkey").bytes_after > 0
    with pytest.raises(InvalidInputError, match="sources_pkey is none"):
        reindex(owner, TABLE, index="sources_pkey")
    with pytest.raises(SchemaError, match="nowhere was expected"):
        reindex(owner, "nowhere")


def test_what_speaks_against_it(owner: Database, store: SynapseDocumentStore) -> None:
    with Rebuild.opened(owner, TABLE, progress=None) as work:
        with pytest.raises(GuardError, match="MB are needed"):
            work.require_room(2**60)
        with pytest.raises(GuardError, match="by another process"):
            reindex(owner, TABLE)
    with owner.connection() as connection:
        connection.execute(f"COMMENT ON TABLE {TABLE} IS 'synapse bulk load {{}}'")
    with pytest.raises(GuardError, match="bulk load"):
        reindex(owner, TABLE)
    with owner.connection() as connection:
        connection.execute(f"COMMENT ON TABLE {TABLE} IS NULL")


def test_a_load_waits_its_turn(owner: Database, store: SynapseDocumentStore) -> None:
    with Rebuild.opened(owner, TABLE, progress=None), pytest.raises(GuardError, match="by another process"):
        load_documents(owner, active_model(owner), [])


@pytest.mark.system
def test_behind_a_transaction_pooler_it_is_refused(tcp_server: TcpServer, short_folder: Path) -> None:
    with pooled(tcp_server.tcp(), short_folder / "reindex-pooler", server_connections=3) as through:
        pooler = Database(psycopg.conninfo.make_conninfo(through, dbname="postgres"))
        with pytest.raises(GuardError, match="transaction pooler"):
            reindex(pooler, TABLE)
    with Database(tcp_server.tcp(dbname="postgres")).unpooled() as connection:
        require_session(Database(tcp_server.tcp(dbname="postgres")), connection)
