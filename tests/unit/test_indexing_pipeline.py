"""The pipelines as Haystack users meet them, and the version of what they make."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from haystack import Pipeline
from haystack.dataclasses import ByteStream

from components.chunk_ids import chunk_id
from components.source_writer import SourceWriter
from config import Settings
from database.errors import InvalidInputError
from pipelines.fingerprint import CHUNKER_VERSION, CONVERTER_VERSION, fingerprint
from pipelines.indexing import build_indexing_pipeline, build_preparation_pipeline
from pipelines.preparation import prepare

PROJECT = Path(__file__).parents[2]
EXAMPLES = PROJECT / "examples" / "documents"
MADE_BY_VERSION = {(1, 1): "6a654ac6de1157cf"}
"""Hash of what converter and chunker of these versions make of the examples."""


def test_several_files_of_several_types_in_one_run() -> None:
    pipeline = build_preparation_pipeline(Settings())
    files = [str(EXAMPLES / name) for name in ("safety.md", "visitors.csv")]
    result = pipeline.run({"router": {"sources": files, "meta": [{"n": 1}, {"n": 2}]}})
    texts = {source.meta["source"]: source.content for source in result["splitter"]["sources"]}
    assert sorted(texts) == sorted(files)
    assert {document.meta["n"] for document in result["language"]["documents"]} == {1, 2}
    for document in result["language"]["documents"]:
        assert document.content == texts[document.meta["source"]][slice(*document.meta["span"])]


def test_indexing_pipeline_is_saved_and_loaded() -> None:
    settings = Settings(from_environment=True, embedding_batch_size=7)
    text = build_indexing_pipeline(settings).dumps()
    loaded = Pipeline.loads(text, allowed_modules=["components.*"])
    saved = build_indexing_pipeline(settings).to_dict()
    assert loaded.to_dict()["components"] == saved["components"]
    assert sorted(map(str, loaded.to_dict()["connections"])) == sorted(map(str, saved["connections"]))
    writer = loaded.get_component("writer")
    assert isinstance(writer, SourceWriter)
    assert writer.fingerprint == fingerprint(Settings())


def test_a_password_is_not_saved() -> None:
    pipeline = build_indexing_pipeline(Settings(database_url="postgresql://user:secret@host/name"))
    with pytest.raises(ValueError, match="Cannot serialize token-based secret"):
        pipeline.dumps()


def test_chunks_without_their_source_are_refused() -> None:
    prepared = prepare(build_preparation_pipeline(Settings()), EXAMPLES / "safety.md", {})
    writer = SourceWriter(home="unused")
    writer._ledger = object()  # type: ignore[assignment]  # nothing is to be written
    with pytest.raises(InvalidInputError, match=r"safety\.md is not among them"):
        writer.run(documents=prepared.documents, sources=[])


def test_fingerprint_tells_models_apart() -> None:
    assert fingerprint(Settings()) != fingerprint(Settings(embedding_model="other/model"))


def test_fingerprint_and_file_types_load_nothing() -> None:
    program = (
        "import sys; import pipelines.fingerprint, components.file_types; "
        "print(sorted({'haystack', 'torch', 'tokenizers', 'psycopg'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_preparation_loads_neither_model_nor_driver() -> None:
    program = (
        "import sys; from config import Settings; from pipelines.indexing import build_preparation_pipeline as build; "
        "build(Settings()).warm_up(); print(sorted({'sentence_transformers', 'transformers', 'psycopg'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_same_versions_make_the_same_chunks() -> None:
    """If this fails, raise the version of what you changed in `pipelines/fingerprint.py`, and note the new hash here."""
    pipeline = build_preparation_pipeline(Settings())
    made = []
    for path in sorted(EXAMPLES.iterdir()):
        if not path.name.endswith(".meta.json"):
            stream = ByteStream(data=path.read_bytes(), meta={"source": path.name})
            prepared = prepare(pipeline, stream, {})
            made.append([prepared.text, *(document.meta for document in prepared.documents)])
    found = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]
    assert found == MADE_BY_VERSION[CONVERTER_VERSION, CHUNKER_VERSION]


def test_ids_of_chunks() -> None:
    first, second, *_ = prepare(build_preparation_pipeline(Settings()), EXAMPLES / "safety.md", {}).documents
    assert chunk_id("/a", 0, first) == chunk_id("/a", 0, first)
    assert (
        len({chunk_id("/a", 0, first), chunk_id("/b", 0, first), chunk_id("/a", 1, first), chunk_id("/a", 0, second)})
        == 4
    )
    assert len(chunk_id("/a", 0, first)) == 40
