"""Indexing and asking with a server that embeds: the same documents are found as with the model in this process."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from config import Settings
from database.connection import Database
from database.errors import ConfigurationError, EmbeddingModelError
from database.ledger import Ledger
from database.models import active_model
from pipelines.answering import Assistant
from pipelines.fingerprint import fingerprint
from pipelines.indexing_driver import IndexingDriver
from pipelines.query import build_query_pipeline
from pipelines.sync import SyncRules, plan_sync
from tests.support.embedding_server import EmbeddingServer, letters, real_model

TEXTS = {
    "warranty.md": "# Warranty\n\nDishwashers carry a warranty of 24 months. Keep the receipt in a drawer.\n",
    "moon.md": "# Moon\n\nThe Moon goes around the Earth in 27 days.\n\n## Tides\n\nIts pull makes the tides.\n",
    "search.md": "# Search\n\nAn HNSW search keeps a list of candidates; ef_search says how many.\n",
}
ANSWERED = "How long is the warranty of dishwashers?"
QUESTIONS = (
    ANSWERED,
    "How long is the warranty?",
    "What makes the tides?",
    "What does ef_search say?",
    "receipt drawer",
    "Earth",
)


@pytest.fixture(scope="module")
def embeddings() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(real_model()) as server:
        yield server


def indexed(folder: Path, settings: Settings, database: Database) -> dict[str, list[float]]:
    """Index a folder; the embedding of each chunk by its id."""
    ledger = Ledger(database, model=active_model(database))
    driver = IndexingDriver(settings, ledger=ledger)
    try:
        rules = SyncRules(fingerprint=fingerprint(settings), suffixes=frozenset({".md"}), max_file_bytes=10**6)
        result = driver.apply(plan_sync([folder], ledger, rules=rules))
    finally:
        driver.close()
    assert not result.failed
    rows = database.read("SELECT id, embedding::real[] AS embedding FROM documents_all_minilm_l6_v2", binary=False)
    return {row["id"]: row["embedding"] for row in rows}


def emptied(database: Database) -> None:
    Ledger(database, model=active_model(database)).remove(
        [row["source"] for row in database.read("SELECT source FROM sources")]
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in TEXTS.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.slow
def test_the_same_documents_are_found(folder: Path, database: Database, embeddings: EmbeddingServer) -> None:
    local = Settings(database_url=database.conninfo)
    remote = Settings(database_url=database.conninfo, embedding_base_url=embeddings.url)
    by_hand = indexed(folder, local, database)
    answers = [Assistant(local).ask(question) for question in QUESTIONS]
    assert {answer.supported for answer in answers} == {True, False}
    emptied(database)

    by_server = indexed(folder, remote, database)
    assert by_server.keys() == by_hand.keys()
    for number, vector in by_server.items():
        assert float(np.dot(vector, by_hand[number])) > 0.9999
    assert any("24 months" in text for text in embeddings.texts)
    for question, expected in zip(QUESTIONS, answers, strict=True):
        found = Assistant(remote).ask(question)
        assert question in embeddings.texts
        assert [document.id for document in found.documents] == [document.id for document in expected.documents]
        assert found.text == expected.text
        assert found.supported == expected.supported


async def test_asynchronously_and_without_its_key_in_what_is_saved(
    folder: Path, database: Database, embeddings: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(database_url=database.conninfo, embedding_base_url=embeddings.url, embedding_api_key="k3y")
    indexed(folder, settings, database)
    answer = await Assistant(settings).ask_async(ANSWERED)
    assert "24 months" in answer.text
    monkeypatch.setenv("DATABASE_URL", database.conninfo)
    monkeypatch.setenv("EMBEDDING_BASE_URL", embeddings.url)
    monkeypatch.setenv("EMBEDDING_API_KEY", "k3y")
    saved = build_query_pipeline(Settings.from_env("/dev/null")).dumps()
    assert "k3y" not in saved
    assert saved.count("EMBEDDING_API_KEY") == 2


def test_a_server_that_fails_is_one_sentence(folder: Path, database: Database) -> None:
    with EmbeddingServer(forever="401") as refusing:
        settings = Settings(database_url=database.conninfo, embedding_base_url=refusing.url)
        with pytest.raises(EmbeddingModelError, match=r"refused the key \(401\)"):
            Assistant(settings).ask(QUESTIONS[0])
        with pytest.raises(EmbeddingModelError, match=r"refused the key \(401\)"):
            indexed(folder, settings, database)
    assert database.read("SELECT count(*) AS n FROM documents_all_minilm_l6_v2")[0]["n"] == 0


def test_vectors_of_another_dimension_are_not_stored(folder: Path, database: Database) -> None:
    with EmbeddingServer(partial(letters, dimension=8)) as other:
        settings = Settings(database_url=database.conninfo, embedding_base_url=other.url)
        with pytest.raises(ConfigurationError, match=r"Vectors of 384 dimensions were expected .* gives 8"):
            indexed(folder, settings, database)
        with pytest.raises(ConfigurationError, match=r"Vectors of 384 dimensions were expected .* gives 8"):
            Assistant(settings).search(QUESTIONS[0])
    assert database.read("SELECT count(*) AS n FROM documents_all_minilm_l6_v2")[0]["n"] == 0
