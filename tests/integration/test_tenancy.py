"""Tenants: what one may see of another, and whether their searches keep their indexes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from haystack import Document
from haystack.utils import Secret
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from database import models
from database.bulk_load import load_documents
from database.connection import Database
from database.document_store import SynapseDocumentStore
from database.errors import DatabaseError, GuardError, InvalidInputError, UnknownTenantError
from database.ledger import IndexedSource, Ledger, SourceState
from database.metadata_fields import declare_field
from database.migration_runs import find_run, roll_back
from database.models import active_model
from database.schema import upgrade
from database.tenancy import (
    DEFAULT_TENANT,
    checked_tenant,
    create_tenant,
    drop_tenant,
    list_tenants,
    require_bound,
    schema_of,
    tenant_of,
)
from migration.conversion import checked_policies
from migration.engine import Migration, Options
from tests.support.record_source import RecordSource, record

TABLE = "documents_all_minilm_l6_v2"
OWN = ("sources", "source_texts", "source_chunks", "metadata_fields", TABLE, f"{TABLE}_keywords", f"{TABLE}_terms")


@pytest.fixture(scope="module")
def place(owner_conninfo: str) -> Iterator[str]:
    """The owner's connection string of a database with our schema, for tenants of its own."""
    name = f"tenants_{os.urandom(4).hex()}"
    with psycopg.connect(owner_conninfo, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        place = make_conninfo(owner_conninfo, dbname=name)
        upgrade(place)
        yield place
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def owner_of_all(place: str) -> Iterator[Database]:
    database = Database(place)
    yield database
    database.close()


@pytest.fixture(scope="module")
def application(place: str, session_database: Database) -> Iterator[Database]:
    """The application's role, in no tenant."""
    dbname = psycopg.conninfo.conninfo_to_dict(place)["dbname"]
    database = Database(make_conninfo(session_database.conninfo, dbname=dbname))
    yield database
    database.close()


@pytest.fixture
def tenant(owner_of_all: Database) -> Iterator[Callable[[], str]]:
    """Makes tenants; removes them, with the roles, which belong to all databases of the server."""
    names: list[str] = []

    def make() -> str:
        names.append(f"t_{os.urandom(4).hex()}")
        assert create_tenant(owner_of_all, names[-1])
        return names[-1]

    yield make
    for name in names:
        drop_tenant(owner_of_all, name)


def store(database: Database, tenant: str) -> SynapseDocumentStore:
    return SynapseDocumentStore(
        connection_string=Secret.from_token(database.conninfo), schema_name=schema_of(tenant), embedding_dimension=384
    )


def document(number: int, text: str, **meta: Any) -> Document:
    embedding = np.random.default_rng(number).normal(size=384).astype(np.float32).tolist()
    return Document(id=f"document-{number}", content=text, embedding=embedding, meta=meta)


def source(name: str, text: str) -> IndexedSource:
    state = SourceState(
        source=name, root=name, size=1, mtime_ns=0, checked_at_ns=0, content_hash="", meta_hash="", fingerprint=""
    )
    chunk = Document(id=f"chunk of {name}", content=text, embedding=[1.0] * 384, meta={"source": name})
    return IndexedSource(state=state, title=None, mime_type="text/plain", text=text, documents=[chunk])


@pytest.mark.parametrize(
    "name", ["", "Acme", "1st", "a-b", "a.b", "a" * 41, 'a"; RESET ROLE; --', "ä", "a b", "a\n", "a\0"]
)
def test_names_that_no_tenant_has(name: str, owner_of_all: Database, application: Database) -> None:
    with pytest.raises(InvalidInputError, match="1 to 40"):
        checked_tenant(name)
    with pytest.raises(InvalidInputError):
        application.for_tenant(name)
    with pytest.raises(InvalidInputError):
        create_tenant(owner_of_all, name)
    with pytest.raises(psycopg.Error), psycopg.connect(owner_of_all.conninfo) as connection:
        connection.execute("SELECT synapse_create_tenant(%s)", (name,))


def test_schemas_and_tenants_are_each_others() -> None:
    for name in (DEFAULT_TENANT, "acme"):
        assert tenant_of(schema_of(name)) == name
    assert [tenant_of(schema) for schema in ("other", "tenant_", "tenant_A", "pg_catalog")] == [None] * 4


def test_a_tenant_that_is_not_there(owner_of_all: Database, application: Database) -> None:
    for database in (application, owner_of_all):
        with pytest.raises(UnknownTenantError, match="nobody"):
            database.for_tenant("nobody").read("SELECT count(*) FROM sources")
    with pytest.raises(UnknownTenantError):
        drop_tenant(owner_of_all, "nobody")
    with pytest.raises(GuardError):
        drop_tenant(owner_of_all, DEFAULT_TENANT)


def test_without_a_tenant_nothing_is_seen(application: Database, tenant: Callable[[], str]) -> None:
    name = tenant()
    for schema in ("public", schema_of(name)):
        for table in OWN:
            with pytest.raises(DatabaseError, match="permission denied"):
                application.read(SQL("SELECT count(*) FROM {}").format(Identifier(schema, table)))


def test_a_tenant_sees_its_own_alone(application: Database, tenant: Callable[[], str]) -> None:
    one, other = tenant(), tenant()
    for name in (one, other, DEFAULT_TENANT):
        store(application, name).write_documents([document(1, f"the words of {name}", who=name)])
        database = application.for_tenant(name)
        Ledger(database, model=active_model(database)).write([source("/same/path", f"the text of {name}")])
    for name in (one, other, DEFAULT_TENANT):
        mine = store(application, name)
        found = {found.id: found for found in mine.filter_documents()}
        assert set(found) == {"document-1", "chunk of /same/path"}
        assert found["document-1"].meta["who"] == name
        assert mine.filter_documents({"field": "meta.who", "operator": "!=", "value": name}) in (
            [],
            [found["chunk of /same/path"]],
        )
        assert {hit.content for hit in mine.keyword_search("words text")} == {
            f"the words of {name}",
            f"the text of {name}",
        }
        assert mine.dense_search(document(1, "").embedding or [], top_k=9)[0].meta["who"] == name
        database = application.for_tenant(name)
        ledger = Ledger(database, model=active_model(database))
        assert ledger.text("/same/path") == f"the text of {name}"
        for stranger in {one, other, DEFAULT_TENANT} - {name}:
            for table in OWN:
                for statement in ("SELECT * FROM {}", "DELETE FROM {}"):
                    with pytest.raises(DatabaseError, match="permission denied"), database.connection() as connection:
                        connection.execute(SQL(statement).format(Identifier(schema_of(stranger), table)))
    store(application, DEFAULT_TENANT).delete_all_documents()
    assert store(application, one).count_documents() == 2


def test_a_role_ends_with_its_transaction(application: Database, tenant: Callable[[], str]) -> None:
    """Also with one that failed: no pooled connection keeps what it was."""
    name = tenant()
    who = "SELECT current_user::text AS who, current_setting('search_path') AS path"
    before = application.read(who)
    for _ in range(20):
        with pytest.raises(DatabaseError):
            application.for_tenant(name).read("SELECT 1 / 0")
        with pytest.raises(DatabaseError), application.for_tenant(name).connection() as connection:
            connection.execute("SELECT nothing")
        with pytest.raises(RuntimeError), application.for_tenant(name).connection():
            raise RuntimeError
        assert application.for_tenant(name).read(who)[0]["who"] == f"synapse_tenant_{name}"
        assert application.read(who) == before


async def test_a_role_ends_with_its_transaction_async(application: Database, tenant: Callable[[], str]) -> None:
    name = tenant()
    who = "SELECT current_user::text AS who"
    for _ in range(5):
        with pytest.raises(DatabaseError):
            await application.for_tenant(name).read_async("SELECT 1 / 0")
        async with application.for_tenant(name).connection_async() as connection:
            assert await (await connection.execute(who)).fetchone() == {"who": f"synapse_tenant_{name}"}
        assert (await application.read_async(who)) == [{"who": "synapse_app"}]
    await application.close_async()


def test_a_read_too_large_for_a_pipeline_is_the_tenants_too(application: Database, tenant: Callable[[], str]) -> None:
    rows = application.for_tenant(name := tenant()).read(
        "SELECT current_user::text AS who, cardinality(%(many)s::text[]) AS many", {"many": ["x" * 1000] * 200}
    )
    assert rows == [{"who": f"synapse_tenant_{name}", "many": 200}]


def test_filters_and_words_keep_their_indexes(
    owner_of_all: Database, application: Database, tenant: Callable[[], str]
) -> None:
    """As the application's role in a tenant: a policy with a condition would make each of them a sequential scan."""
    name = tenant()
    mine, database = store(application, name), application.for_tenant(name)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(3000, 384)).astype(np.float32)
    load_documents(
        owner_of_all,
        SynapseDocumentStore(connection_string=Secret.from_token(owner_of_all.conninfo), schema_name=schema_of(name)),
        [
            Document(
                id=str(n),
                content=f"number{n} words",
                embedding=vectors[n].tolist(),
                meta={"n": n, "kind": f"k{n % 500}"},
            )
            for n in range(3000)
        ],
    )
    declare_field(owner_of_all.for_tenant(name), TABLE, "kind", "text")
    place = Identifier(schema_of(name), TABLE)
    keywords = Identifier(schema_of(name), f"{TABLE}_keywords")
    with owner_of_all.unpooled() as connection:
        connection.execute(SQL("ANALYZE {}").format(place))
        connection.execute(SQL("ANALYZE {}").format(keywords))
        connection.execute(SQL("CREATE INDEX containing ON {} USING gin (meta jsonb_path_ops)").format(place))

    def plan(statement: str, params: Any = None) -> str:
        composed = SQL("EXPLAIN " + statement).format(place=place, keywords=keywords)
        return "\n".join(row["QUERY PLAN"] for row in database.read(composed, params, binary=False))

    assert "containing" in plan("SELECT id FROM {place} WHERE meta @> '{{\"n\": 7}}'")
    assert "_keywords_terms" in plan(
        "SELECT document_id FROM {keywords} WHERE terms && ARRAY[%(term)s]::integer[]", {"term": 12345}
    )
    assert "_hnsw_index" in plan(
        "SELECT id FROM {place} ORDER BY embedding <=> %(query)s::vector LIMIT 5", {"query": vectors[0]}
    )
    explained = mine.explain_search(
        "words", vectors[0].tolist(), filters={"field": "meta.kind", "operator": "==", "value": "k7"}
    )
    assert not [step for step in explained.plan if "Seq Scan" in step and TABLE in step]
    found = mine.dense_search(vectors[7].tolist(), filters={"field": "meta.kind", "operator": "==", "value": "k7"})
    assert found[0].id == "7"
    assert len(found) == 6


def test_creating_again_and_side_by_side(owner_of_all: Database, tenant: Callable[[], str]) -> None:
    name = tenant()
    assert not create_tenant(owner_of_all, name)
    several = [f"s_{os.urandom(4).hex()}" for _ in range(4)]
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda one: create_tenant(owner_of_all, one), several * 2))
    assert made.count(True) >= 4
    assert {*several, name, DEFAULT_TENANT} <= {known.name for known in list_tenants(owner_of_all)}
    for one in several:
        assert isinstance(drop_tenant(owner_of_all, one), dict)
    assert not set(several) & {known.name for known in list_tenants(owner_of_all)}
    roles = owner_of_all.read(
        "SELECT count(*) AS n FROM pg_roles WHERE rolname = ANY(%(names)s)",
        {"names": [f"synapse_tenant_{one}" for one in several]},
    )
    assert roles == [{"n": 0}]


def test_a_model_is_every_tenants(owner_of_all: Database, application: Database, tenant: Callable[[], str]) -> None:
    before, after = tenant(), None
    model = models.EmbeddingModel.named("other/model", dimension=3)
    models.add_model(owner_of_all, model)
    after = tenant()
    for name in (before, after, DEFAULT_TENANT):
        statement = SQL("INSERT INTO {} (id, embedding) VALUES ('a', '[1,2,3]')").format(Identifier(model.table_name))
        with application.for_tenant(name).connection() as connection:
            connection.execute(statement)
    assert models.drop_model(owner_of_all, model.name)["documents"] == 3
    for name in (before, after):
        assert application.for_tenant(name).read(
            "SELECT to_regclass(%(name)s) IS NULL AS gone", {"name": f"{schema_of(name)}.{model.table_name}"}
        ) == [{"gone": True}]


def test_the_keywords_of_one_are_not_dropped_for_another(application: Database, tenant: Callable[[], str]) -> None:
    """`DROP TABLE IF EXISTS documents_keywords` would find the default tenant's, further along the search path."""
    default = store(application, DEFAULT_TENANT)
    default.write_documents([document(5, "peculiar")])
    tenant()
    assert [found.id for found in default.keyword_search("peculiar")] == ["document-5"]
    default.delete_all_documents()


@pytest.mark.parametrize(
    ("how", "undo", "message"),
    [
        ("ALTER ROLE synapse_app BYPASSRLS", "ALTER ROLE synapse_app NOBYPASSRLS", "has BYPASSRLS"),
        ("GRANT synapse_tenant_default TO synapse_app WITH INHERIT TRUE", None, "inherits the tenant role"),
        (
            "ALTER TABLE sources DISABLE ROW LEVEL SECURITY",
            "ALTER TABLE sources ENABLE ROW LEVEL SECURITY",
            "not closed",
        ),
        (
            "ALTER TABLE sources NO FORCE ROW LEVEL SECURITY",
            "ALTER TABLE sources FORCE ROW LEVEL SECURITY",
            "not closed",
        ),
    ],
)
def test_a_role_that_would_come_past_the_policies(
    owner_of_all: Database, application: Database, how: str, undo: str | None, message: str
) -> None:
    require_bound(application)
    with owner_of_all.unpooled() as connection:
        connection.execute(how)  # type: ignore[call-overload]
        try:
            with pytest.raises(GuardError, match=message) as caught:
                require_bound(application)
            if undo is None:
                undo = caught.value.hint.partition("run as the owner: ")[2].rstrip(".")
        finally:
            connection.execute(undo)  # type: ignore[call-overload]
    require_bound(application)
    with pytest.raises(GuardError, match="superuser"):
        require_bound(owner_of_all)


def test_an_owner_whom_policies_bind_loads_and_declares(owner_conninfo: str, empty_conninfo: str) -> None:
    """As on a managed server: the owner is no superuser, and COPY takes no policies."""
    dbname = psycopg.conninfo.conninfo_to_dict(empty_conninfo)["dbname"]
    role = f"managed_{os.urandom(4).hex()}"
    with psycopg.connect(empty_conninfo, autocommit=True) as admin:
        admin.execute("CREATE EXTENSION vector")
        admin.execute(f"CREATE ROLE {role} LOGIN CREATEROLE PASSWORD 'managed'")
        admin.execute(f"ALTER DATABASE {dbname} OWNER TO {role}")
        admin.execute(f"ALTER SCHEMA public OWNER TO {role}")
        for name in ("synapse_tenant", "synapse_tenant_default", "synapse_app"):  # made by another owner on this server
            admin.execute(f"GRANT {name} TO {role} WITH ADMIN TRUE, INHERIT {name == 'synapse_tenant_default'}")
    managed = Database(make_conninfo(owner_conninfo, dbname=dbname, user=role, password="managed"))
    try:
        upgrade(managed.conninfo)
        name = f"m_{os.urandom(4).hex()}"
        create_tenant(managed, name)
        for tenant in (DEFAULT_TENANT, name):
            mine = store(managed, tenant)
            load_documents(managed, mine, [document(n, f"word{n}", n=n) for n in range(50)])
            assert mine.count_documents() == 50
            assert [found.id for found in mine.keyword_search("word7")] == ["document-7"]
            declare_field(managed.for_tenant(tenant), TABLE, "n", "number")
        closed = managed.read(
            "SELECT bool_and(relforcerowsecurity) AS closed FROM pg_class WHERE relname = %(table)s", {"table": TABLE}
        )
        assert closed == [{"closed": True}]
        drop_tenant(managed, name)
    finally:
        managed.close()
        with psycopg.connect(empty_conninfo, autocommit=True) as admin:
            admin.execute(f"REASSIGN OWNED BY {role} TO CURRENT_USER")
            admin.execute(f"DROP OWNED BY {role}")
            admin.execute(f"DROP ROLE {role}")


def test_a_migration_goes_to_its_tenant_alone(
    owner_of_all: Database, application: Database, tenant: Callable[[], str], tmp_path: Path
) -> None:
    """Also a second one of the same source to another tenant, and the rollback of one."""
    one, other = tenant(), tenant()
    source, runs = RecordSource({"papers": [record(n, dimension=384) for n in range(30)]}, dimension=384), {}
    for name in (one, other):
        options = Options(policies=checked_policies({}), queries=3)
        receipt = Migration(source, owner_of_all.for_tenant(name), options, receipts=tmp_path / name).run()
        assert receipt.closed, receipt.problems
        runs[name] = receipt.run["id"]
    assert runs[one] != runs[other]
    count = "SELECT count(*) AS n FROM documents_papers"
    assert [application.for_tenant(name).read(count)[0]["n"] for name in (one, other, DEFAULT_TENANT)] == [30, 30, 0]
    with pytest.raises(GuardError, match=f"tenant {other}"):
        roll_back(owner_of_all.for_tenant(one), find_run(owner_of_all, runs[other]))
    with pytest.raises(GuardError, match="30 documents, but has 60"):
        roll_back(owner_of_all.for_tenant(one), find_run(owner_of_all, runs[one]))
    roll_back(owner_of_all.for_tenant(other), find_run(owner_of_all, runs[other]))
    assert [application.for_tenant(name).read(count)[0]["n"] for name in (one, other)] == [30, 0]
    roll_back(owner_of_all.for_tenant(one), find_run(owner_of_all, runs[one]))
    assert not [model for model in models.list_models(owner_of_all) if model.table_name == "documents_papers"]
