"""The migrations for Supabase, on a server with its roles, `auth.uid()` and an owner who is no superuser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID

import numpy as np
import numpy.typing as npt
import psycopg
import pytest
from psycopg.sql import SQL, Composed, Identifier

from deploy.write_supabase import write
from tests.support.supabase import Api, create_project, owner_conninfo, start
from tests.tcp_server import TcpServer, psql

pytestmark = pytest.mark.slow

TABLE = "documents_all_minilm_l6_v2"
MODEL = "all-minilm-l6-v2"
ALICE, BOB, CAROL = (UUID(int=number) for number in (1, 2, 3))
DOCUMENTS, DIMENSION, CHUNKS = 8_000, 384, 25
FUNCTIONS = ("search_documents", "match_documents", "hybrid_search")


def named(statement: LiteralString) -> Composed:
    """A statement with the name of the documents table."""
    return SQL(statement).format(Identifier(TABLE))


@pytest.fixture(scope="module")
def supabase(short_folder: Path) -> Iterator[TcpServer]:
    """A server with Supabase's roles."""
    server = start(short_folder / "supabase")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def migrated(supabase: TcpServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A project's database, made by the migrations."""
    name = create_project(supabase)
    push(supabase, name, tmp_path_factory.mktemp("migrations"))
    return name


def push(server: TcpServer, name: str, folder: Path) -> None:
    """Run all migrations in order, as `supabase db push` does."""
    write(folder)
    for file in sorted(folder.iterdir()):
        done = psql(owner_conninfo(server, name), "-f", file)
        assert done.returncode == 0, done.stderr


@dataclass(frozen=True, kw_only=True)
class Project:
    """
    A project's database with documents.

    :param embeddings: Of its documents, of unit length, in the order of their ids.
    :param visible: The numbers of the documents that each may read.
    """

    server: TcpServer
    name: str
    embeddings: npt.NDArray[np.float32]
    visible: dict[str, npt.NDArray[np.int64]]

    def api(self, who: str) -> Api:
        """Requests of somebody: anon, alice, bob, carol or service_role."""
        user = {"alice": ALICE, "bob": BOB, "carol": CAROL}.get(who)
        return Api(self.server, self.name, role="authenticated" if user else who, user=user)

    def nearest(self, who: str, query: npt.NDArray[np.float32], top_k: int, *, team: int | None = None) -> list[str]:
        """The ids that somebody should find, by comparing every document."""
        numbers = self.visible[who]
        if team is not None:
            numbers = numbers[numbers % 10 == team]
        order = np.argsort(-(self.embeddings[numbers] @ query), kind="stable")[:top_k]
        return [f"d{number}" for number in numbers[order]]


@pytest.fixture(scope="module")
def project(supabase: TcpServer, migrated: str) -> Project:
    """Documents in 40 groups by meaning: of everybody, of Alice by source, of Bob one by one, and of nobody."""
    random = np.random.default_rng(7)
    centres = random.normal(size=(40, DIMENSION))
    embeddings = centres[np.arange(DOCUMENTS) % 40] + 0.8 * random.normal(size=(DOCUMENTS, DIMENSION))
    embeddings = (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float32)
    numbers = np.arange(DOCUMENTS)
    public = numbers[numbers % 40 < 20]
    alices = numbers[(numbers % 40 >= 20) & (numbers % 40 < 24)]
    bobs = numbers[numbers % 40 == 30][:12]
    with psycopg.connect(owner_conninfo(supabase, migrated)) as connection, connection.cursor() as cursor:
        with cursor.copy(f"COPY {TABLE} (id, content, meta, embedding) FROM STDIN") as copy:
            for number, embedding in enumerate(embeddings):
                meta = json.dumps({"team": number % 10, "number": number % 1000, "user_id": str(CAROL)})
                content = f"Group {number % 40} tells of word{number % 97}."
                copy.write_row((f"d{number}", content, meta, json.dumps(embedding.tolist())))
        cursor.execute("INSERT INTO auth.users (id) SELECT unnest(%s::uuid[])", ([ALICE, BOB, CAROL],))
        for folder, those, reader in (("/public", public, None), ("/alice", alices, ALICE)):
            for part in range(0, len(those), CHUNKS):
                source = f"{folder}/{part}"
                cursor.execute(
                    "INSERT INTO sources"
                    " (model, source, root, size, mtime_ns, checked_at_ns, content_hash, meta_hash, fingerprint)"
                    " VALUES (%s, %s, '/', 0, 0, 0, '', '', '')",
                    (MODEL, source),
                )
                cursor.execute(
                    "INSERT INTO source_chunks (model, document_id, source, position)"
                    " SELECT %s, 'd' || number, %s, number FROM unnest(%s::integer[]) AS number",
                    (MODEL, source, those[part : part + CHUNKS].tolist()),
                )
                cursor.execute("INSERT INTO document_readers (source, reader) VALUES (%s, %s)", (source, reader))
        cursor.execute(
            "INSERT INTO document_readers (document_id, reader) SELECT 'd' || unnest(%s::integer[]), %s",
            (bobs.tolist(), BOB),
        )
    with psycopg.connect(owner_conninfo(supabase, migrated), autocommit=True) as connection:
        connection.execute("ANALYZE")
    visible = {
        "anon": public,
        "carol": public,
        "alice": np.sort(np.concatenate([public, alices])),
        "bob": np.sort(np.concatenate([public, bobs])),
        "service_role": numbers,
    }
    return Project(server=supabase, name=migrated, embeddings=embeddings, visible=visible)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("who", ["anon", "carol", "alice", "bob", "service_role"])
def test_each_finds_what_they_may_read_and_all_of_it(project: Project, who: str, function: str) -> None:
    """Questions from among all documents: for half of them, the nearest 200 are hidden from most."""
    found, wanted = 0, 0
    words = {"query_text": "nothing"} if function == "hybrid_search" else {}
    for number in range(0, DOCUMENTS, 701):
        query = project.embeddings[number]
        rows = project.api(who).rpc(function, query_embedding=query.tolist(), match_count=10, **words)
        ids, expected = [row["id"] for row in rows], project.nearest(who, query, 10)
        assert len(ids) == 10
        assert {int(identity[1:]) for identity in ids} <= set(project.visible[who].tolist())
        found += len(set(ids) & set(expected))
        wanted += 10
    assert found >= 0.95 * wanted


def scans(project: Project, who: str, function: str, **parameters: Any) -> dict[str, int]:
    """How often a call read each index of the documents and keywords, and their tables one row after the other."""
    counters = {
        "hnsw": f"pg_stat_get_xact_numscans('{TABLE}_hnsw_index'::regclass)",
        "meta": f"pg_stat_get_xact_numscans('{TABLE}_meta_index'::regclass)",
        "keywords": f"pg_stat_get_xact_numscans('{TABLE}_keywords_terms'::regclass)",
        "documents one by one": f"pg_stat_get_xact_numscans('{TABLE}'::regclass)",
        "keywords one by one": f"pg_stat_get_xact_numscans('{TABLE}_keywords'::regclass)",
    }
    api = project.api(who)
    with psycopg.connect(project.server.tcp(dbname=project.name)) as connection:  # who may look at the counters
        connection.execute("SET LOCAL search_path = public, extensions")
        connection.execute(
            "SELECT set_config('role', %s, true), set_config('request.jwt.claims', %s, true)", (api.role, api.claims)
        )
        connection.execute(*api.call(function, parameters)).fetchall()
        connection.execute("SET LOCAL ROLE NONE")
        row = connection.execute(f"SELECT {', '.join(counters.values())}").fetchone()
        assert row is not None
        return dict(zip(counters, row, strict=True))


@pytest.mark.parametrize("who", ["anon", "alice", "service_role"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_where_many_pass_the_index_is_gone_along(project: Project, who: str, function: str) -> None:
    words = {"query_text": "word3 word55"} if function == "hybrid_search" else {}
    for number in range(0, 20, 3):  # of what all may read
        query = project.embeddings[number].tolist()
        read = scans(project, who, function, query_embedding=query, match_count=10, **words)
        assert read["hnsw"] == 1, read
        assert read["documents one by one"] == read["keywords one by one"] == 0, read


@pytest.mark.parametrize("function", FUNCTIONS)
def test_where_few_pass_they_are_all_compared_and_no_others(project: Project, function: str) -> None:
    words = {"query_text": "word3 word55"} if function == "hybrid_search" else {}
    query = project.embeddings[39].tolist()
    read = scans(
        project, "service_role", function, query_embedding=query, match_count=10, filter={"number": 77}, **words
    )
    assert (read["hnsw"], read["meta"] > 0) == (0, True), read
    assert read["documents one by one"] == read["keywords one by one"] == 0, read


def test_words_are_sought_in_their_index(project: Project) -> None:
    query = project.embeddings[5].tolist()
    for who in ("anon", "service_role"):
        read = scans(project, who, "hybrid_search", query_text="word3 word55", query_embedding=query, match_count=10)
        assert read["keywords"] > 0, read


@pytest.mark.parametrize(
    "index",
    ["hnsw ((embedding::halfvec(384)) halfvec_cosine_ops)", "ivfflat (embedding vector_cosine_ops) WITH (lists = 20)"],
    ids=["half precision", "IVFFlat"],
)
def test_other_kinds_of_index_are_gone_along_too(project: Project, index: LiteralString) -> None:
    """In a transaction that is rolled back."""
    api = project.api("service_role")
    query = project.embeddings[5]
    with psycopg.connect(project.server.tcp(dbname=project.name)) as connection:
        connection.execute("SET LOCAL search_path = public, extensions")
        connection.execute("SET LOCAL max_parallel_maintenance_workers = 0")
        connection.execute(SQL("DROP INDEX {}").format(Identifier(f"{TABLE}_hnsw_index")))
        connection.execute(named("CREATE INDEX other ON {} USING " + index))
        connection.execute("SET LOCAL ROLE service_role")
        call = api.call("search_documents", {"query_embedding": query.tolist(), "match_count": 10})
        found = [row[0] for row in connection.execute(*call).fetchall()]
        connection.execute("SET LOCAL ROLE NONE")
        assert connection.execute("SELECT pg_stat_get_xact_numscans('other'::regclass)").fetchone() == (1,)
        connection.rollback()
    assert len(set(found) & set(project.nearest("service_role", query, 10))) >= 9


@pytest.mark.parametrize("who", ["anon", "alice", "bob", "service_role"])
def test_a_filter_takes_nothing_from_what_is_found(project: Project, who: str) -> None:
    for number in range(0, DOCUMENTS, 1997):
        query = project.embeddings[number]
        for team in (3, 7):
            rows = project.api(who).rpc(
                "search_documents", query_embedding=query.tolist(), match_count=10, filter={"team": team}
            )
            assert {row["metadata"]["team"] for row in rows} == {team}
            expected = project.nearest(who, query, 10, team=team)
            assert len(set(expected) & {row["id"] for row in rows}) >= 8
            assert len(rows) == 10


def test_a_reader_of_few_documents_gets_them_and_those_of_all(project: Project) -> None:
    """Bob's twelve lie where nothing else may be read, and no filter by metadata says whose a document is."""
    query = project.embeddings[30]
    rows = project.api("bob").rpc("search_documents", query_embedding=query.tolist(), match_count=12)
    assert [row["id"] for row in rows] == project.nearest("bob", query, 12)
    assert {int(row["id"][1:]) % 40 for row in rows} == {30}
    claimed = {"user_id": str(CAROL)}  # every document says so of itself
    rows = project.api("carol").rpc("search_documents", query_embedding=query.tolist(), match_count=12, filter=claimed)
    assert {int(row["id"][1:]) for row in rows} <= set(project.visible["anon"].tolist())


def test_as_supabase_and_langchain_call_it(project: Project) -> None:
    query = project.embeddings[0]
    api = project.api("anon")
    expected = project.nearest("anon", query, 5)
    similarities = {f"d{n}": float(project.embeddings[n] @ query) for n in project.visible["anon"]}

    supabase = api.rpc("match_documents", query_embedding=query.tolist(), match_threshold=0.5, match_count=200)
    assert len(supabase) == min(200, sum(similarity > 0.5 for similarity in similarities.values()))
    assert all(row["similarity"] > 0.5 for row in supabase)
    assert not api.rpc("match_documents", query_embedding=query.tolist(), match_threshold=1.0, match_count=5)
    langchain = api.rpc("match_documents", query_embedding=query.tolist(), filter={})
    assert len(langchain) == 200, "it sends its own limit beside the call"
    for rows in (supabase, langchain):
        assert [row["id"] for row in rows[:5]] == expected
        assert [row["similarity"] for row in rows[:5]] == pytest.approx(
            [similarities[id_] for id_ in expected], abs=1e-5
        )
        assert rows[0].keys() == {"id", "content", "metadata", "similarity"}
        assert rows[0]["content"] == "Group 0 tells of word0."


def test_hybrid_search_fuses_both_rankings(project: Project) -> None:
    query = project.embeddings[0].tolist()
    api = project.api("service_role")
    both = api.rpc("hybrid_search", query_text="word96", query_embedding=query, match_count=10, rrf_k=60)
    words = api.rpc("hybrid_search", query_text="word96", query_embedding=query, match_count=10, semantic_weight=0)
    meaning = api.rpc("hybrid_search", query_text="word96", query_embedding=query, match_count=10, full_text_weight=0)
    assert all("word96" in row["content"] for row in words)
    assert [row["id"] for row in meaning] == project.nearest("service_role", project.embeddings[0], 10)
    assert both[0]["id"] in (words[0]["id"], meaning[0]["id"])
    assert both[0]["score"] == pytest.approx(1 / 61, rel=1e-6) or both[0]["score"] > 1 / 61
    assert {row["id"] for row in both} & {row["id"] for row in words}
    assert {row["id"] for row in both} & {row["id"] for row in meaning}
    assert both[0].keys() == {"id", "content", "metadata", "similarity", "score"}
    hidden = {
        row["id"]
        for row in project.api("bob").rpc("hybrid_search", query_text="word96", query_embedding=query, match_count=200)
    }
    assert {int(identity[1:]) for identity in hidden} <= set(project.visible["bob"].tolist())


@pytest.mark.parametrize(
    "filter_",
    [
        {"team": "3' OR true --"},
        {"team' OR '1'='1": 1},
        {"$3": "$4", "%1$I": "%s"},
        {"team": {"$gt": 0}},
        {"a": [{"b": None}]},
    ],
    ids=["value", "key", "placeholders", "operator", "nested"],
)
def test_a_filter_is_a_value_and_nothing_else(project: Project, filter_: dict[str, Any]) -> None:
    for function in FUNCTIONS:
        words = {"query_text": "'; DROP TABLE sources; -- %s $1"} if function == "hybrid_search" else {}
        query = project.embeddings[0].tolist()
        assert project.api("anon").rpc(function, query_embedding=query, match_count=5, filter=filter_, **words) == []


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"match_count": 0}, "match_count must be at least 1, but is 0"),
        ({"match_count": -5}, "match_count must be at least 1, but is -5"),
        ({"filter": [1]}, "filter must be an object, the metadata that documents must have, but is array"),
        (
            {"query_embedding": [1.0, 2.0]},
            "query_embedding must have 384 dimensions, as model all-minilm-l6-v2 gives them, but has 2",
        ),
        (
            {"query_embedding": None},
            "query_embedding must have 384 dimensions, as model all-minilm-l6-v2 gives them, but has none",
        ),
    ],
    ids=["none", "negative", "array", "dimensions", "null"],
)
def test_what_cannot_be_answered_is_refused(project: Project, parameters: dict[str, Any], message: str) -> None:
    for function in FUNCTIONS:
        words = {"query_text": "word3"} if function == "hybrid_search" else {}
        asked = {
            "query_embedding": project.embeddings[0].tolist(),
            "match_count": 5,
            "filter": {},
            **words,
        } | parameters
        with pytest.raises(psycopg.errors.InvalidParameterValue) as caught:
            project.api("anon").rpc(function, **asked)
        assert caught.value.diag.message_primary == message


def test_zeros_have_no_neighbours_and_no_more_than_200_are_found(project: Project) -> None:
    zeros = [0.0] * DIMENSION
    api = project.api("service_role")
    assert api.rpc("search_documents", query_embedding=zeros, match_count=5) == []
    assert len(api.rpc("hybrid_search", query_embedding=zeros, query_text="word3", match_count=5)) == 5
    for count in (1_000_000, None):
        rows = api.rpc("search_documents", query_embedding=project.embeddings[0].tolist(), match_count=count)
        assert len(rows) == 200


def test_settings_end_with_the_call(project: Project) -> None:
    names = ("hnsw.ef_search", "hnsw.iterative_scan", "ivfflat.probes", "jit", "random_page_cost", "search_path")
    now = "SELECT " + ", ".join(f"current_setting('{name}') AS \"{name}\"" for name in names)
    api = project.api("service_role")
    with api.request() as connection:
        connection.execute("SELECT '[1]'::vector")
        before = connection.execute(now).fetchall()
        query = project.embeddings[0].tolist()
        assert connection.execute(
            *api.call("search_documents", {"query_embedding": query, "match_count": 90})
        ).fetchall()
        assert connection.execute(now).fetchall() == before


def test_temporary_tables_are_not_looked_at(project: Project) -> None:
    api = project.api("carol")
    hidden = project.embeddings[39].tolist()
    with api.request() as connection:
        connection.execute(
            "CREATE TEMPORARY TABLE document_readers AS"
            " SELECT 'd39' AS document_id, NULL::text AS source, NULL::uuid AS reader"
        )
        rows = connection.execute(
            *api.call("search_documents", {"query_embedding": hidden, "match_count": 3})
        ).fetchall()
    assert "d39" not in {row["id"] for row in rows}


def test_the_tables_are_closed_to_the_api(project: Project) -> None:
    reached = """
        SELECT c.oid::regclass::text AS name FROM pg_class c
         WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
           AND has_table_privilege(%(role)s, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')"""
    called = """
        SELECT p.proname AS name FROM pg_proc p
         WHERE pronamespace = 'public'::regnamespace AND has_function_privilege(%(role)s, p.oid, 'EXECUTE')
         ORDER BY p.proname"""
    with psycopg.connect(project.server.tcp(dbname=project.name)) as connection:
        for role in ("anon", "authenticated"):
            assert connection.execute(reached, {"role": role}).fetchall() == []
            names = [name for (name,) in connection.execute(called, {"role": role}).fetchall()]
            assert names == ["hybrid_search", "match_documents", "search_documents", "synapse_may_read"]
    with pytest.raises(psycopg.errors.InsufficientPrivilege), project.api("alice").request() as connection:
        connection.execute(named("SELECT id FROM {}"))


@pytest.mark.parametrize("who", ["anon", "alice", "bob", "service_role"])
def test_a_table_that_is_opened_shows_what_the_functions_show(project: Project, who: str) -> None:
    """The policies, which are the second line: SELECT is granted for this test alone."""
    with psycopg.connect(owner_conninfo(project.server, project.name), autocommit=True) as connection:
        connection.execute(named("GRANT SELECT ON {} TO anon, authenticated"))
    try:
        with project.api(who).request() as connection:
            seen = {row["id"] for row in connection.execute(named("SELECT id FROM {}")).fetchall()}
    finally:
        with psycopg.connect(owner_conninfo(project.server, project.name), autocommit=True) as connection:
            connection.execute(named("REVOKE SELECT ON {} FROM anon, authenticated"))
    assert seen == {f"d{number}" for number in project.visible[who]}


def test_rights_follow_the_source_and_end_with_the_user(project: Project) -> None:
    """New chunks of a source are covered at once; a deleted user leaves no right behind."""
    query = np.zeros(DIMENSION, dtype=np.float32)
    query[0] = 1.0
    asked = {"query_embedding": query.tolist(), "match_count": 1}
    owner = owner_conninfo(project.server, project.name)
    dave = UUID(int=4)
    with psycopg.connect(owner) as connection:
        connection.execute("INSERT INTO auth.users (id) VALUES (%s)", (dave,))
        connection.execute("INSERT INTO document_readers (source, reader) VALUES ('/alice/0', %s)", (dave,))
        connection.execute(
            named("INSERT INTO {} (id, content, meta, embedding) VALUES ('new', 'New.', '{{}}', %s)"),
            (json.dumps(query.tolist()),),
        )
        connection.execute("INSERT INTO source_chunks VALUES (%s, 'new', '/alice/0', 100000)", (MODEL,))
    try:
        api = Api(project.server, project.name, role="authenticated", user=dave)
        assert [row["id"] for row in api.rpc("search_documents", **asked)] == ["new"]
        with psycopg.connect(owner) as connection:
            connection.execute("DELETE FROM auth.users WHERE id = %s", (dave,))
        assert [row["id"] for row in api.rpc("search_documents", **asked)] != ["new"]
    finally:
        with psycopg.connect(owner) as connection:
            connection.execute("DELETE FROM source_chunks WHERE document_id = 'new'")
            connection.execute(named("DELETE FROM {} WHERE id = 'new'"))
