"""Arithmetic of embeddings: what is chosen, that 16 bits give the same vectors, and what happens where they fail."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from haystack import Document

from components import embedding_precision
from components.embedders import DocumentEmbedder, TextEmbedder
from components.embedding_precision import PreciseBackend, Precision, precision_sentence, resolved_precision
from components.extractive_answerer import ExtractiveAnswerer
from database.errors import ConfigurationError

TEXTS = [
    "",
    "a",
    "How long is the warranty?",
    "Größe, naïveté, Ελλάδα, 漢字, עברית",
    "😀" * 40,
    "x" * 3000,
    "word " * 1000,
    "\n\t  \n",
    "SELECT 1; -- ' \" ``",
    "Dishwashers carry a warranty of 24 months. " * 30,
    "3.14159 2.71828 " * 40,
    "Short, and in English.",
]


def pretend(monkeypatch: pytest.MonkeyPatch, capabilities: Mapping[str, Any]) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)


def embedded(texts: list[str], precision: Precision) -> np.ndarray[Any, Any]:
    embedder = DocumentEmbedder(compute_precision=precision)
    embedder.warm_up()
    found = embedder.run(documents=[Document(content=text) for text in texts])["documents"]
    return np.array([document.embedding for document in found])


@pytest.mark.parametrize(
    ("capabilities", "device", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, "cpu", "bf16"),
        ({"avx512_bf16": False, "amx_bf16": True}, "cpu", "bf16"),
        ({"avx512_bf16": False, "avx512_f": True}, "cpu", "fp32"),
        ({"architecture": "arm64", "bf16": True}, "cpu", "fp32"),
        ({}, "cuda:0", "fp16"),
        ({"avx512_bf16": True}, "mps", "fp32"),
    ],
)
def test_what_auto_chooses(
    monkeypatch: pytest.MonkeyPatch, capabilities: Mapping[str, Any], device: str, expected: str
) -> None:
    pretend(monkeypatch, capabilities)
    assert resolved_precision("auto", device=device) == expected
    assert resolved_precision("fp32", device=device) == "fp32"


def test_what_people_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {"avx512_bf16": True})
    assert precision_sentence("auto", device="cpu") == "Embedding in bf16 on this processor."
    assert precision_sentence("auto", device="cuda:0") == "Embedding in fp16 on cuda:0."
    pretend(monkeypatch, {})
    assert precision_sentence("auto", device="cpu") == "Embedding in fp32: this processor has no bf16."
    assert "as EMBEDDING_PRECISION says" in precision_sentence("bf16", device="cpu")


def test_bf16_gives_the_same_vectors() -> None:
    plain, reduced = embedded(TEXTS, "fp32"), embedded(TEXTS, "bf16")
    assert not np.array_equal(plain, reduced), "nothing was computed in bf16"
    assert (plain * reduced).sum(axis=1).min() >= 0.9999
    assert np.abs(np.linalg.norm(reduced, axis=1) - 1).max() < 1e-5


def test_short_calls_are_computed_in_fp32_unless_bf16_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {"avx512_bf16": True})
    question = "How long is the warranty?"
    vectors = {}
    for precision in ("fp32", "auto", "bf16"):
        embedder = TextEmbedder(compute_precision=precision)
        embedder.warm_up()
        vectors[precision] = embedder.run(text=question)["embedding"]
    assert vectors["auto"] == vectors["fp32"] != vectors["bf16"]
    assert all(type(number) is float for number in vectors["bf16"])


def test_threads_that_embed_at_once() -> None:
    texts = [text for text in TEXTS if len(text) < 200]
    expected = embedded(texts, "fp32")
    with ThreadPoolExecutor(16) as pool:
        for found in pool.map(lambda _: embedded(texts, "bf16"), range(16)):
            assert (found * expected).sum(axis=1).min() >= 0.9999


class Awkward:
    """A backend that fails, or gives what is not a number, under autocast."""

    model = (None,)

    def __init__(self, failure: str) -> None:
        self.failure = failure

    def embed(self, data: list[str], **kwargs: Any) -> list[list[float]]:
        if torch.is_autocast_enabled("cpu"):
            if self.failure == "raises":
                raise RuntimeError('"kernel" not implemented for BFloat16\nmore')
            return [[float("nan"), 1.0] for _ in data]
        return [[0.6, 0.8] for _ in data]


@pytest.mark.parametrize("failure", ["raises", "overflows"])
def test_a_model_that_cannot_goes_on_in_fp32(failure: str, caplog: pytest.LogCaptureFixture) -> None:
    backend = PreciseBackend(Awkward(failure), precision="bf16", device="cpu")
    with caplog.at_level(logging.WARNING, logger=embedding_precision.__name__):
        assert backend.embed(["a"]) == backend.embed(["b"]) == [[0.6, 0.8]]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "goes on in fp32" in caplog.text
    assert backend.precision == "fp32"


def test_an_error_that_has_nothing_to_do_with_it_is_raised() -> None:
    class Broken:
        def embed(self, data: list[str], **kwargs: Any) -> list[list[float]]:
            raise ValueError("no such prompt")

    backend = PreciseBackend(Broken(), precision="bf16", device="cpu")
    with pytest.raises(ValueError, match="no such prompt"):
        backend.embed(["a"])
    assert backend.precision == "bf16"


@pytest.mark.parametrize("kind", [TextEmbedder, DocumentEmbedder, ExtractiveAnswerer])
def test_the_choice_is_saved(kind: Any) -> None:
    component = kind(compute_precision="bf16")
    assert kind.from_dict(component.to_dict()).compute_precision == "bf16" if hasattr(kind, "from_dict") else True
    assert component.to_dict()["init_parameters"]["compute_precision"] == "bf16"


def test_a_choice_that_there_is_not() -> None:
    with pytest.raises(ConfigurationError, match="fp32, bf16, fp16, but is 'half'"):
        TextEmbedder(compute_precision="half")
