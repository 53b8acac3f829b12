"""sentence-transformers-haystack's cross-encoder ranker, with a title and a heading to read and an error that says what to do."""

from __future__ import annotations

import copy
import threading
from typing import Any

from haystack import component
from haystack_integrations.components.rankers.sentence_transformers import SentenceTransformersSimilarityRanker
from transformers.utils.logging import disable_progress_bar

from database.errors import ConfigurationError

_loading = threading.Lock()
_loaded: dict[str, Any] = {}
_OF_THE_MODEL = (
    "model",
    "device",
    "token",
    "trust_remote_code",
    "model_kwargs",
    "tokenizer_kwargs",
    "config_kwargs",
    "backend",
)
"""What decides whether two rankers may share one model."""


@component
class Reranker(SentenceTransformersSimilarityRanker):
    """
    Orders documents by what a cross-encoder says, which reads question and document together.

    More exact than comparing embeddings, and slower: the model runs once for each document. Nogueira and Cho,
    arXiv:1901.04085 (2019).

    :param model: A cross-encoder on the hub, such as `cross-encoder/ms-marco-MiniLM-L6-v2`, or a folder that holds one.
    :param meta_fields_to_embed: Metadata that is read with the content; `None` means title and heading.
    :param options: Whatever `SentenceTransformersSimilarityRanker` takes, such as `top_k`.
    """

    def __init__(self, *, model: str, meta_fields_to_embed: list[str] | None = None, **options: Any) -> None:
        fields = ["title", "heading"] if meta_fields_to_embed is None else meta_fields_to_embed
        SentenceTransformersSimilarityRanker.__init__(self, model=model, meta_fields_to_embed=fields, **options)

    def warm_up(self) -> None:
        """
        Load the model, once a process.

        :raises ConfigurationError: If it cannot be loaded, or is no cross-encoder.
        """
        with _loading:
            if self._cross_encoder is not None:
                return
            key = repr([getattr(self, name) for name in _OF_THE_MODEL])
            if key not in _loaded:
                _loaded[key] = self._load()
            self._cross_encoder = _loaded[key]

    def _load(self) -> Any:
        disable_progress_bar()  # type: ignore[no-untyped-call]
        loader = copy.copy(self)
        try:
            SentenceTransformersSimilarityRanker.warm_up(loader)
        except (OSError, ValueError, KeyError, RuntimeError) as exc:
            raise ConfigurationError(
                f"RERANK_MODEL must be a cross-encoder on the hub, or a folder that holds one; {self.model!r} cannot be "
                f"loaded: {(str(exc) or type(exc).__name__).splitlines()[0]}",
                hint="Check the name and the network, or unset RERANK_MODEL to go without.",
            ) from exc
        encoder: Any = loader._cross_encoder
        if encoder.num_labels != 1:
            raise ConfigurationError(
                f"RERANK_MODEL must give one score, but {self.model!r} gives {encoder.num_labels}.",
                hint="Use a cross-encoder that was trained for ranking.",
            )
        return encoder
