"""The indexing pipeline writes what it prepared, whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from haystack import Document, Pipeline, component
from haystack.utils import Secret

from components.source_writer import SourceWriter
from config import Settings
from database.connection import Database
from database.ledger import Ledger
from database.models import active_model
from pipelines.indexing import build_preparation_pipeline
from tests.support.indexing import HashEmbedder


@component
class FakeEmbedder:
    """Embeds by hash."""

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        return HashEmbedder().run(documents)


@pytest.fixture
def ledger(database: Database) -> Ledger:
    return Ledger(database, model=active_model(database))


@pytest.fixture
def pipeline(database: Database) -> Pipeline:
    pipeline = build_preparation_pipeline(Settings())
    pipeline.add_component("embedder", FakeEmbedder())
    writer = SourceWriter(connection_string=Secret.from_token(database.conninfo), fingerprint="v1")
    pipeline.add_component("writer", writer)
    pipeline.connect("language.documents", "embedder.documents")
    pipeline.connect("embedder.documents", "writer.documents")
    pipeline.connect("splitter.sources", "writer.sources")
    return pipeline


def test_what_was_prepared_is_written(tmp_path: Path, pipeline: Pipeline, ledger: Ledger) -> None:
    long = "Many words stand here, so that this part is more than tiny and stays by itself. " * 3
    paths = [tmp_path / "a.md", tmp_path / "b.txt"]
    paths[0].write_text(f"# Guide\n\n## One\n\n{long}\n\n## Two\n\n{long}\n")
    paths[1].write_text("Short note.")
    result = pipeline.run({"router": {"sources": [str(path) for path in paths], "meta": {"team": "x"}}})
    assert result["writer"]["chunks"] == 3
    states = ledger.read()
    assert {name: state.chunks for name, state in states.items()} == {str(paths[0]): 2, str(paths[1]): 1}
    assert {state.fingerprint for state in states.values()} == {"v1"}
    for path in paths:
        text = ledger.text(str(path)) or ""
        for chunk in ledger.chunks(str(path)):
            assert chunk["content"] == text[slice(*chunk["meta"]["span"])]
            assert chunk["meta"]["team"] == "x"


def test_changed_file_replaces_its_chunks(tmp_path: Path, pipeline: Pipeline, ledger: Ledger) -> None:
    path = tmp_path / "a.txt"
    for text in ("First version.", "Second version."):
        path.write_text(text)
        pipeline.run({"router": {"sources": [str(path)]}})
    assert [chunk["content"] for chunk in ledger.chunks(str(path))] == ["Second version."]
