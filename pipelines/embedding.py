"""Which embedder the settings ask for: the model in this process, or a server that has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from config import Settings
    from database.models import EmbeddingModel


def text_embedder(settings: Settings, model: EmbeddingModel) -> Any:
    """
    What embeds questions. Without a server, importing it takes seconds, as torch does.

    :param settings: Whether there is a server.
    :param model: The registered model; what a server gives must have its dimension.
    """
    if settings.embedding_base_url:
        from components.remote_embedders import RemoteTextEmbedder

        return RemoteTextEmbedder(model=model.model, dimension=model.dimension, **remote(settings))
    from components.embedders import TextEmbedder

    return TextEmbedder(model=model.model, compute_precision=settings.embedding_precision)


def document_embedder(settings: Settings, model: str, *, dimension: int | None = None) -> Any:
    """
    What embeds documents.

    :param model: The model's name, as sentence-transformers or the server knows it.
    :param dimension: That of its table; `None` means that it is not known yet.
    """
    if settings.embedding_base_url:
        from components.remote_embedders import RemoteDocumentEmbedder

        return RemoteDocumentEmbedder(
            model=model, dimension=dimension, batch_size=settings.embedding_batch_size, **remote(settings)
        )
    from components.embedders import DocumentEmbedder

    return DocumentEmbedder(
        model=model, batch_size=settings.embedding_batch_size, compute_precision=settings.embedding_precision
    )


def model_dimension(settings: Settings, model: str) -> int:
    """
    The length of a model's vectors: loads it, or asks the server once.

    :raises ConfigurationError: If it cannot be loaded.
    :raises EmbeddingModelError: If the server failed.
    """
    if settings.embedding_base_url:
        from components.remote_embedders import RemoteTextEmbedder

        return len(RemoteTextEmbedder(model=model, **remote(settings)).run(text="dimension")["embedding"])
    from components.embedders import embedding_dimension

    return embedding_dimension(model)


def remote(settings: Settings) -> dict[str, Any]:
    """The server's part of an embedder's arguments; empty where there is none. A saved pipeline names the key's variable."""
    if not settings.embedding_base_url:
        return {}
    from haystack.utils import Secret  # a sync with nothing to do loads none of it

    key = None
    if settings.from_environment:
        key = Secret.from_env_var("EMBEDDING_API_KEY", strict=False)
    elif settings.embedding_api_key:
        key = Secret.from_token(settings.embedding_api_key)
    return {"api_base_url": settings.embedding_base_url, "api_key": key, "timeout": settings.embedding_timeout}
