"""The default model without a hub, and models that cannot be loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from haystack import Document

from components import model_files
from components.embedders import DocumentEmbedder, TextEmbedder, embedding_dimension
from components.model_files import DEFAULT_MODEL, model_location
from database.errors import ConfigurationError


def test_the_default_model_gives_unit_vectors_of_384() -> None:
    embedder = TextEmbedder()
    embedder.warm_up()
    embedding = embedder.run(text="How do I start it?")["embedding"]
    assert len(embedding) == embedding_dimension(DEFAULT_MODEL) == 384
    assert sum(number * number for number in embedding) == pytest.approx(1, abs=1e-5)
    assert embedder.to_dict()["init_parameters"]["model"] == DEFAULT_MODEL


def test_title_and_heading_are_embedded_too() -> None:
    embedder = DocumentEmbedder()
    embedder.warm_up()
    plain, titled = embedder.run(
        documents=[Document(content="It is red."), Document(content="It is red.", meta={"title": "Mars"})]
    )["documents"]
    assert plain.embedding != titled.embedding


def test_a_model_that_is_nowhere() -> None:
    with pytest.raises(ConfigurationError, match="'org/nowhere' cannot be loaded") as caught:
        TextEmbedder(model="org/nowhere").warm_up()
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_the_hubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"something else")
    monkeypatch.setattr(model_files, "_package_folder", lambda: tmp_path)
    with pytest.raises(ConfigurationError, match="its bytes differ"):
        model_location(DEFAULT_MODEL)
    assert model_location(DEFAULT_MODEL, weights=False) == str(tmp_path)
