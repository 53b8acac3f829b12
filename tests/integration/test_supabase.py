"""The migrations for Supabase, on a server with its roles, `auth.uid()` and an owner who is no superuser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt
import psycopg
import pytest

from deploy.write_supabase import FOLDER, migrations
from tests.support.supabase import Api, create_project, owner_conninfo, start
from tests.tcp_server import TcpServer, psql

TABLE = "documents_all_minilm_l6_v2"
MODEL = "all-minilm-l6-v2"
ALICE, BOB, CAROL = (UUID(int=number) for number in (1, 2, 3))
DOCUMENTS, DIMENSION = 6_000, 384
FUNCTIONS = ("search_documents", "match_documents", "hybrid_search")


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
    for file, text in migrations().items():
        (folder / file).write_text(text, encoding="utf-8")
        done = psql(owner_conninfo(server, name), "-f", folder / file)
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
                meta = json.dumps({"team": number % 10, "readers": ["anon"], "user_id": str(CAROL)})
                content = f"Group {number % 40} tells of word{number % 97}."
                copy.write_row((f"d{number}", content, meta, json.dumps(embedding.tolist())))
        cursor.execute("INSERT INTO auth.users (id) SELECT unnest(%s::uuid[])", ([ALICE, BOB, CAROL],))
        for source, those, reader in (("/public", public, None), ("/alice", alices, ALICE)):
            cursor.execute(
                "INSERT INTO sources (model, source, root, size, mtime_ns, checked_at_ns, content_hash, meta_hash, fingerprint)"
                " VALUES (%s, %s, '/', 0, 0, 0, '', '', '')",
                (MODEL, source),
            )
            cursor.execute(
                "INSERT INTO source_chunks (model, document_id, source, position)"
                " SELECT %s, 'd' || number, %s, number FROM unnest(%s::integer[]) AS number",
                (MODEL, source, those.tolist()),
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


def test_they_are_written_from_the_schema_versions() -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in (FOLDER / "migrations").iterdir()}
    assert written == migrations(), "run `python -m deploy.write_supabase`"


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("who", ["anon", "carol", "alice", "bob", "service_role"])
def test_each_finds_what_they_may_read_and_all_of_it(project: Project, who: str, function: str) -> None:
    """Questions from among all documents, those hidden included."""
    found, wanted = 0, 0
    words = {"query_text": "nothing"} if function == "hybrid_search" else {}
    for number in range(0, DOCUMENTS, 301):
        query = project.embeddings[number]
        rows = project.api(who).rpc(function, query_embedding=query.tolist(), match_count=10, **words)
        ids, expected = [row["id"] for row in rows], project.nearest(who, query, 10)
        assert len(ids) == 10
        assert {int(identity[1:]) for identity in ids} <= set(project.visible[who].tolist())
        found += len(set(ids) & set(expected))
        wanted += 10
    assert found >= 0.99 * wanted
