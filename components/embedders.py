"""
sentence-transformers-haystack's embedders, with the default model from its package instead of a model hub.

`@component` makes each class anew, which breaks `super()`; hence the parents by their names.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from typing import Any

from haystack import component
from haystack_integrations.components.embedders.sentence_transformers import (
    SentenceTransformersDocumentEmbedder,
    SentenceTransformersTextEmbedder,
)
from transformers.utils.logging import disable_progress_bar

from components.embedding_precision import PreciseBackend, Precision, checked_precision
from components.model_files import DEFAULT_MODEL, model_location
from database.errors import ConfigurationError

_loading = threading.Lock()  # two embedders of one model share its weights only if they are not loaded at the same time


@component
class TextEmbedder(SentenceTransformersTextEmbedder):
    """
    Embeds a question.

    :param model: Name of a sentence-transformers model; saved as it is, and resolved when it is loaded.
    :param compute_precision: `auto`, `fp32`, `bf16` or `fp16`; see `components.embedding_precision`. (`precision` is
        Haystack's, and means that the embeddings themselves are quantised.)
    :param progress_bar: Whether to draw a bar; a question needs none.
    :param options: Whatever `SentenceTransformersTextEmbedder` takes.
    """

    def __init__(
        self,
        *,
        model: str = DEFAULT_MODEL,
        compute_precision: Precision = "auto",
        progress_bar: bool = False,
        **options: Any,
    ) -> None:
        SentenceTransformersTextEmbedder.__init__(self, model=model, progress_bar=progress_bar, **options)
        self.compute_precision = checked_precision(compute_precision)

    def to_dict(self) -> dict[str, Any]:
        """Serialize the component to a dictionary."""
        return _saved(self, SentenceTransformersTextEmbedder)

    def warm_up(self) -> None:
        """Load the model, once."""
        _load(self, SentenceTransformersTextEmbedder)

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Embed several texts at once."""
        self.warm_up()
        assert self.embedding_backend is not None
        vectors: list[list[float]] = self.embedding_backend.embed(
            list(texts), batch_size=len(texts), show_progress_bar=False
        )
        return vectors


@component
class DocumentEmbedder(SentenceTransformersDocumentEmbedder):
    """
    Embeds documents, their title and heading before their content.

    :param model: Name of a sentence-transformers model; saved as it is, and resolved when it is loaded.
    :param meta_fields_to_embed: Metadata that is embedded with the content; `None` means title and heading.
    :param compute_precision: As for `TextEmbedder`.
    :param progress_bar: Whether to draw a bar; commands draw their own.
    :param options: Whatever `SentenceTransformersDocumentEmbedder` takes.
    """

    def __init__(
        self,
        *,
        model: str = DEFAULT_MODEL,
        meta_fields_to_embed: list[str] | None = None,
        compute_precision: Precision = "auto",
        progress_bar: bool = False,
        **options: Any,
    ) -> None:
        fields = ["title", "heading"] if meta_fields_to_embed is None else meta_fields_to_embed
        SentenceTransformersDocumentEmbedder.__init__(
            self, model=model, meta_fields_to_embed=fields, progress_bar=progress_bar, **options
        )
        self.compute_precision = checked_precision(compute_precision)

    def to_dict(self) -> dict[str, Any]:
        """Serialize the component to a dictionary."""
        return _saved(self, SentenceTransformersDocumentEmbedder)

    def warm_up(self) -> None:
        """Load the model, once."""
        _load(self, SentenceTransformersDocumentEmbedder)


def embedding_dimension(model: str) -> int:
    """
    The length of a model's vectors; loads it.

    :raises ConfigurationError: If it cannot be loaded.
    """
    embedder = TextEmbedder(model=model)
    embedder.warm_up()
    return len(embedder.run(text="dimension")["embedding"])


def _saved(embedder: Any, parent: type[Any]) -> dict[str, Any]:
    saved: dict[str, Any] = parent.to_dict(embedder)
    saved["init_parameters"]["compute_precision"] = embedder.compute_precision
    return saved


def _load(embedder: Any, parent: type[Any]) -> None:
    """Let the parent load the model from where its files are, while the embedder keeps the plain name."""
    with _loading:
        if embedder.embedding_backend is not None:
            return
        loader = copy.copy(embedder)
        loader.model = model_location(embedder.model)
        disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers draws one for every model that it loads
        try:
            parent.warm_up(loader)
        except (OSError, ValueError) as exc:
            raise ConfigurationError(
                f"EMBEDDING_MODEL must be a model on the hub, or a folder that holds one; {embedder.model!r} cannot be "
                f"loaded: {str(exc).splitlines()[0]}",
                hint=f"Check the name and the network, or use the default, {DEFAULT_MODEL}, which needs neither.",
            ) from exc
        embedder.embedding_backend = PreciseBackend(
            loader.embedding_backend, precision=embedder.compute_precision, device=embedder.device.to_torch_str()
        )
