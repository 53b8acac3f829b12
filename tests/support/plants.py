"""What is wrong with a database on one ordinary server, for each finding that it can show."""

# ruff: noqa: S608 - the statements are of the names that stand here

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import psycopg
from haystack import Document
from psycopg.conninfo import make_conninfo

from database.bulk_load import BulkLoad
from database.connection import Database
from database.health.patient import Configured, Limits, Machine
from database.health.releases import MAJORS
from database.models import EmbeddingModel, add_model
from tests.support.clinic import TABLE, Clinic, Plant, files_of
from tests.support.relay import Relay

HNSW = f"{TABLE}_hnsw_index"
FIELD = (
    "(SELECT indexrelid FROM pg_index WHERE indexrelid = (SELECT to_regclass(index_name) FROM metadata_fields LIMIT 1))"
)
LOADING = EmbeddingModel.named("org/loading", dimension=3)
MISMATCHED = (
    "INSERT INTO embedding_models (name, model, dimension, table_name) VALUES ('gone', 'org/gone', 3, 'documents_gone')"
)
FORGET_GONE = (
    "DELETE FROM embedding_models WHERE name = 'gone'",
    "DROP TABLE documents_gone, documents_gone_keywords, documents_gone_terms",
)


CERTIFIED = (
    "INSERT INTO recall_certificates (tenant, table_name, ef_search, top_k, recall, lower, certificate)"
    f""" VALUES ('default', '{TABLE}', 200, 10, 0.998, 0.99, '{{"rows": 300}}')"""
)


def set_to(**changed: Any) -> Callable[[Clinic], dict[str, Any]]:
    """The same for every clinic."""
    return lambda _: changed


def configured(**changed: Any) -> Callable[[Clinic], dict[str, Any]]:
    """The program set up otherwise."""
    return lambda _: {"configured": Configured(**{"model_files": files_of} | changed)}


def database_setting(name: str, value: str) -> tuple[str, ...]:
    """A setting of every new session of the database."""
    return (f"ALTER DATABASE synapse SET {name} = '{value}'",)


class FarRelay(Relay):
    """A server that is far away: what is sent to it takes 8 ms."""

    def _pass_on(self, source: Any, target: Any, from_client: bool) -> None:
        with suppress(OSError):  # one of the two is gone
            while data := source.recv(65536):
                if from_client:
                    time.sleep(0.008)
                target.sendall(data)
        target.close()


def far(clinic: Clinic) -> dict[str, Any]:
    """The application beyond such a relay."""
    folder = clinic.folder / f"far-{time.monotonic_ns()}"
    folder.mkdir()
    known = psycopg.conninfo.conninfo_to_dict(clinic.application)
    FarRelay(folder, f"{known['host']}/.s.PGSQL.{known['port']}")
    return {
        "application": Database(make_conninfo(clinic.application, host=str(folder))),
        "limits": Limits(round_trip_ms=5),
    }


def turned_off(name: str) -> Callable[[Clinic], AbstractContextManager[Any]]:
    """A setting of the server, in force before it is looked at."""

    @contextmanager
    def off(clinic: Clinic) -> Iterator[None]:
        clinic.run(f"ALTER SYSTEM SET {name} = off")
        clinic.reloaded(name, "off")
        try:
            yield
        finally:
            clinic.run(f"ALTER SYSTEM RESET {name}")
            clinic.reloaded(name, "on")

    return off


@contextmanager
def idle_session(clinic: Clinic) -> Iterator[None]:
    connection = psycopg.connect(clinic.owner)
    connection.execute("SELECT 1")
    time.sleep(0.05)
    yield
    connection.close()


@contextmanager
def long_session(clinic: Clinic) -> Iterator[None]:
    def sleep() -> None:
        with psycopg.connect(clinic.owner, autocommit=True) as connection, suppress(psycopg.errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(60)")

    thread = threading.Thread(target=sleep)
    thread.start()
    time.sleep(0.3)
    yield
    thread.join(10)
    assert not thread.is_alive()


@contextmanager
def killed_load(clinic: Clinic) -> Iterator[None]:
    """A load whose connection is gone before its indexes are back."""
    owner = Database(clinic.owner)
    add_model(owner, LOADING)
    documents = [Document(id=f"l{n}", content=f"loaded {n}", embedding=[float(n + 1), 1.0, 0.0]) for n in range(20)]
    try:
        with owner.unpooled() as connection:
            from pgvector.psycopg import register_vector

            register_vector(connection)
            load = BulkLoad(owner, connection, LOADING, memory=None, report=lambda _: None)
            load.begin()
            load.write(documents, policy="fail")
        yield
        found = clinic.value(f"SELECT count(*) FROM {LOADING.table_name}_keywords")
        assert found == 20, "the cure fills the keyword tables"
    finally:
        from database.models import drop_model

        drop_model(owner, LOADING.name)
        owner.close()


@contextmanager
def unanalysed_table(clinic: Clinic) -> Iterator[None]:
    owner = Database(clinic.owner)
    add_model(owner, LOADING)
    clinic.run(
        f"ALTER TABLE {LOADING.table_name} DISABLE TRIGGER synapse_keywords_insert",
        f"INSERT INTO {LOADING.table_name} (id, embedding) SELECT 'n' || n, ARRAY[n, 1, 0]::vector FROM generate_series(1, 2500) AS n",
        f"ALTER TABLE {LOADING.table_name} ENABLE TRIGGER synapse_keywords_insert",
        f"SELECT synapse_rebuild_keywords('{LOADING.table_name}')",
    )
    try:
        yield
    finally:
        from database.models import drop_model

        drop_model(owner, LOADING.name)
        owner.close()


@contextmanager
def small_model(clinic: Clinic) -> Iterator[None]:
    """The active model is a folder whose model gives 8 numbers."""
    folder = clinic.folder / "small-model"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"hidden_size": 8}')
    (folder / "model.safetensors").write_bytes(b"")
    clinic.run(f"UPDATE embedding_models SET model = '{folder}' WHERE active")
    yield
    clinic.run("UPDATE embedding_models SET model = 'sentence-transformers/all-MiniLM-L6-v2' WHERE active")


@contextmanager
def held_log(clinic: Clinic) -> Iterator[None]:
    clinic.run("SELECT pg_create_physical_replication_slot('left_behind', true)")
    for number in range(2):
        clinic.run(f"CREATE TABLE log_{number} ()", f"DROP TABLE log_{number}", "SELECT pg_switch_wal()")
    yield


def readable(name: str, text: str) -> Callable[[Clinic], AbstractContextManager[Any]]:
    """A file that others may read."""

    @contextmanager
    def there(clinic: Clinic) -> Iterator[None]:
        secret = clinic.folder / name
        secret.write_text(text)
        secret.chmod(0o644)
        yield
        assert secret.stat().st_mode & 0o777 == 0o600
        secret.unlink()

    return there


def secrets_in(clinic: Clinic) -> dict[str, Any]:
    """The program with files of its own."""
    files = (clinic.folder / "page_secret", clinic.folder / ".env")
    return {"configured": Configured(model_files=files_of, secret_files=files)}


def old_age(clinic: Clinic) -> dict[str, Any]:
    """A limit that this database has just passed."""
    return {
        "limits": Limits(
            transaction_age=clinic.value("SELECT age(datfrozenxid) FROM pg_database WHERE datname = 'synapse'") // 2
        )
    }


def sorted_otherwise(version: str) -> tuple[str, ...]:
    return (f"UPDATE pg_database SET datcollversion = '{version}' WHERE datname = 'synapse'",)


RELEASE = MAJORS[18]
TODAY = date.today()

PLANTS = [
    # the way there
    Plant(code="connection_slow", changed=far, hands=True),
    Plant(code="clock_skew", changed=set_to(now=lambda: time.time() + 3600), hands=True),
    Plant(
        code="owner_unreachable",
        changed=lambda clinic: {"owner": Database(make_conninfo(clinic.owner, port="1"))},
        hands=True,
    ),
    # the server
    Plant(code="server_unsupported", changed=set_to(releases={99: RELEASE}), hands=True),
    Plant(
        code="server_end_of_life",
        changed=set_to(releases={18: replace(RELEASE, ends=TODAY - timedelta(days=2))}),
        hands=True,
    ),
    Plant(
        code="server_end_of_life_near",
        changed=set_to(releases={18: replace(RELEASE, ends=TODAY + timedelta(days=90))}),
        hands=True,
    ),
    Plant(code="server_minor_old", changed=set_to(releases={18: replace(RELEASE, minor=99)}), hands=True),
    Plant(code="collation_changed", sql=sorted_otherwise("0.9")),
    # pgvector
    Plant(code="extension_behind", sql=("UPDATE pg_extension SET extversion = '0.8.4' WHERE extname = 'vector'",)),
    Plant(
        code="extension_too_old",
        sql=(
            *(
                f"ALTER EXTENSION vector DROP {kind} ({name}[] AS sparsevec)"
                for kind in ("CAST",)
                for name in ("integer", "real", "double precision", "numeric")
            ),
            *(f"DROP CAST ({name}[] AS sparsevec)" for name in ("integer", "real", "double precision", "numeric")),
            *(
                f"ALTER EXTENSION vector DROP FUNCTION array_to_sparsevec({name}[], integer, boolean)"
                for name in ("integer", "real", "double precision", "numeric")
            ),
            *(
                f"DROP FUNCTION array_to_sparsevec({name}[], integer, boolean)"
                for name in ("integer", "real", "double precision", "numeric")
            ),
            "UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'",
        ),
    ),
    Plant(
        code="pgvector_ivfflat_faults",
        sql=(
            f"CREATE INDEX ivfflat_of_{TABLE} ON {TABLE} USING ivfflat (embedding vector_cosine_ops) WITH (lists = 1)",
        ),
        undo=(f"DROP INDEX ivfflat_of_{TABLE}",),
        hands=True,
    ),
    Plant(
        code="extension_elsewhere",
        sql=("CREATE SCHEMA elsewhere", "ALTER EXTENSION vector SET SCHEMA elsewhere"),
        undo=("DROP SCHEMA elsewhere",),
    ),
    Plant(code="vector_type_broken", sql=("REVOKE USAGE ON TYPE vector FROM PUBLIC",)),
    # the schema
    Plant(
        code="schema_newer",
        sql=("UPDATE alembic_version SET version_num = '9999'",),
        undo=("UPDATE alembic_version SET version_num = '0006'",),
        hands=True,
    ),
    Plant(
        code="schema_interrupted",
        sql=('COMMENT ON TABLE alembic_version IS \'synapse schema change {"before": "0005", "after": "0006"}\'',),
    ),
    # models
    Plant(code="no_active_model", sql=("UPDATE embedding_models SET active = false",)),
    Plant(code="model_table_missing", sql=(MISMATCHED,), undo=FORGET_GONE),
    Plant(
        code="model_table_differs",
        sql=("UPDATE embedding_models SET dimension = 100 WHERE active",),
        along=frozenset({"model_files_differ"}),
    ),
    Plant(
        code="model_table_differs",
        name="type",
        sql=("UPDATE embedding_models SET vector_type = 'halfvec' WHERE active",),
    ),
    Plant(code="model_unregistered", changed=configured(embedding_model="org/other"), hands=True),
    Plant(
        code="model_files_missing",
        sql=("UPDATE embedding_models SET model = 'org/absent' WHERE active",),
        undo=("UPDATE embedding_models SET model = 'sentence-transformers/all-MiniLM-L6-v2' WHERE active",),
        hands=True,
    ),
    Plant(code="model_files_differ", around=small_model, hands=True),
    # indexes
    Plant(code="index_missing", sql=(f"DROP INDEX {HNSW}",)),
    Plant(
        code="index_other_distance",
        sql=(f"DROP INDEX {HNSW}", f"CREATE INDEX {HNSW} ON {TABLE} USING hnsw (embedding vector_l2_ops)"),
    ),
    Plant(code="index_invalid", sql=(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{HNSW}'::regclass",)),
    Plant(
        code="index_invalid",
        name="leftover",
        sql=(
            f"CREATE INDEX {HNSW}_ccnew ON {TABLE} USING hnsw (embedding vector_cosine_ops) WITH (m = 8, ef_construction = 48)",
            f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{HNSW}_ccnew'::regclass",
        ),
    ),
    Plant(
        code="index_invalid", name="field", sql=(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = {FIELD}",)
    ),
    Plant(code="index_unused", sql=database_setting("enable_indexscan", "off")),
    Plant(code="bulk_load_unfinished", around=killed_load, along=frozenset({"role_unbound"})),
    # fields
    Plant(
        code="field_index_missing",
        sql=("DO $$ BEGIN EXECUTE 'DROP INDEX ' || (SELECT index_name FROM metadata_fields); END $$",),
    ),
    Plant(code="field_statistics_missing", sql=(f"DELETE FROM pg_statistic WHERE starelid = {FIELD}",)),
    Plant(
        code="field_statistics_missing",
        name="few",
        sql=(
            "DO $$ BEGIN EXECUTE format('ALTER INDEX %I ALTER 1 SET STATISTICS 10', (SELECT index_name FROM metadata_fields)); END $$",
        ),
    ),
    # keywords
    Plant(code="keyword_tables_missing", sql=(f"DROP TABLE {TABLE}_terms",)),
    Plant(code="keyword_triggers_off", sql=(f"ALTER TABLE {TABLE} DISABLE TRIGGER synapse_keywords_delete",)),
    Plant(code="keyword_triggers_off", name="gone", sql=(f"DROP TRIGGER synapse_keywords_update ON {TABLE}",)),
    Plant(code="keywords_out_of_step", sql=(f"DELETE FROM {TABLE}_keywords WHERE document_id IN ('d1', 'd2')",)),
    Plant(
        code="keywords_out_of_step",
        name="gone",
        sql=(
            f"INSERT INTO {TABLE}_keywords SELECT 'nobody', language, length, pivot, terms, weights FROM {TABLE}_keywords LIMIT 1",
        ),
    ),
    Plant(code="keyword_index_missing", sql=(f"DROP INDEX {TABLE}_keywords_terms",)),
    # maintenance
    Plant(
        code="dead_rows",
        sql=(
            "INSERT INTO source_texts SELECT 'all-minilm-l6-v2', '/docs/a.md', 'text'",
            *("UPDATE source_texts SET text = text || 'x'",) * 2,
            "DO $$ BEGIN FOR n IN 1..1500 LOOP UPDATE source_texts SET text = n::text; END LOOP; END $$",
        ),
        undo=("DELETE FROM source_texts", "VACUUM source_texts"),
    ),
    Plant(code="statistics_missing", around=unanalysed_table, along=frozenset({"field_statistics_missing"})),
    Plant(code="table_autovacuum_off", sql=("ALTER TABLE source_texts SET (autovacuum_enabled = false)",)),
    Plant(code="idle_transaction", around=idle_session, changed=set_to(limits=Limits(idle_transaction=0.01))),
    Plant(code="long_transaction", around=long_session, changed=set_to(limits=Limits(long_transaction=0.1))),
    Plant(code="transaction_age", changed=old_age),
    Plant(code="slot_holds_wal", around=held_log, changed=set_to(limits=Limits(slot_bytes=2**20))),
    # access
    Plant(code="role_unbound", name="superuser", sql=("ALTER ROLE synapse_app SUPERUSER",)),
    Plant(code="role_unbound", name="bypassrls", sql=("ALTER ROLE synapse_app BYPASSRLS",)),
    Plant(code="role_unbound", name="inherits", sql=("GRANT synapse_tenant_default TO synapse_app WITH INHERIT TRUE",)),
    Plant(code="role_unbound", name="open", sql=("ALTER TABLE sources NO FORCE ROW LEVEL SECURITY",)),
    Plant(code="role_unbound", name="old-programs", sql=("GRANT SELECT ON sources TO synapse_app",)),
    Plant(code="api_roles_granted", sql=("GRANT SELECT ON sources TO PUBLIC",)),
    Plant(
        code="api_roles_granted",
        name="anon",
        sql=("CREATE ROLE anon", f"GRANT INSERT ON {TABLE} TO anon"),
        undo=("DROP ROLE anon",),
    ),
    # settings
    Plant(code="fsync_off", around=turned_off("fsync")),
    Plant(code="full_page_writes_off", around=turned_off("full_page_writes")),
    Plant(code="autovacuum_off", around=turned_off("autovacuum")),
    Plant(code="autovacuum_off", name="counts", around=turned_off("track_counts")),
    Plant(
        code="maintenance_memory_small",
        sql=database_setting("maintenance_work_mem", "64kB"),
        changed=set_to(machine_facts=Machine()),
    ),
    Plant(code="parallel_maintenance_off", sql=database_setting("max_parallel_maintenance_workers", "0")),
    Plant(code="work_memory_small", sql=database_setting("work_mem", "64kB")),
    Plant(code="connections_few", sql=("ALTER DATABASE synapse CONNECTION LIMIT 12",)),
    Plant(code="connections_few", name="role", sql=("ALTER ROLE synapse_app CONNECTION LIMIT 12",)),
    Plant(
        code="shared_memory_small",
        changed=set_to(machine_facts=Machine(free_disk=2**40, shared_memory=2**16)),
        hands=True,
    ),
    Plant(code="disk_full", changed=set_to(machine_facts=Machine(free_disk=2**20)), hands=True),
    Plant(
        code="disk_short",
        changed=set_to(machine_facts=Machine(free_disk=2**10), limits=Limits(little_disk=0)),
        hands=True,
    ),
    # the documents
    Plant(
        code="sources_quarantined",
        sql=("UPDATE sources SET reason = 'no text in it'",),
        undo=("UPDATE sources SET reason = NULL",),
        hands=True,
    ),
    Plant(
        code="recall_unknown",
        sql=("DELETE FROM recall_certificates", f"UPDATE pg_class SET reltuples = 12000 WHERE relname = '{TABLE}'"),
        undo=(f"ANALYZE {TABLE}", CERTIFIED),
        hands=True,
    ),
    Plant(
        code="recall_outdated",
        sql=("UPDATE recall_certificates SET measured_at = measured_at - interval '200 days'",),
        undo=("UPDATE recall_certificates SET measured_at = now()",),
        hands=True,
    ),
    Plant(
        code="recall_outdated",
        name="grown",
        sql=(f"UPDATE pg_class SET reltuples = 12000 WHERE relname = '{TABLE}'",),
        undo=(f"ANALYZE {TABLE}",),
        hands=True,
    ),
    Plant(
        code="recall_low",
        sql=("UPDATE recall_certificates SET recall = 0.9",),
        undo=("UPDATE recall_certificates SET recall = 0.998",),
        hands=True,
    ),
    Plant(
        code="migration_unfinished",
        sql=(
            "INSERT INTO migration_runs (id, source_kind, source, fingerprint, options, started_at)"
            " VALUES ('0a1b2c', 'chroma', '/data', 'f', '{}', now() - interval '2 hours')",
        ),
    ),
    # files, and the standby
    Plant(code="replica_unreachable", changed=configured(read_url="postgresql://127.0.0.1:1/nothing"), hands=True),
    Plant(code="secret_readable", around=readable("page_secret", "secret"), changed=secrets_in),
    Plant(
        code="secret_readable",
        name="env",
        around=readable(".env", "SYNAPSE_TOP_K=5\nDATABASE_URL=postgresql://synapse_app:word@host/name\n"),
        changed=secrets_in,
    ),
]
