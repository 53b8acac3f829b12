"""Haystack's OpenAI embedders, for any server of that protocol: one sentence for each failure, unit vectors, no torch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import openai
from haystack import Document, component, default_to_dict
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.utils import Secret

from database.errors import ConfigurationError, EmbeddingModelError

RETRIES = 3
"""How often a busy (429) or broken (5xx, no connection) server is asked again, after half a second and then longer."""


class _Remote:
    """What both embedders share: who is asked, and what is made of the answer."""

    api_key: Any  # Haystack's own types are narrower: no key, or wider: no server
    model: str
    api_base_url: Any
    timeout: Any
    max_retries: Any
    dimension: int | None

    def _client_kwargs(self) -> dict[str, Any]:
        """openai's client wants a key, also for servers that need none."""
        return {
            "api_key": (self.api_key.resolve_value() if self.api_key else None) or "not-needed",
            "base_url": self.api_base_url,
            "timeout": self.timeout,
            "max_retries": self.max_retries,
        }

    def _saved(self, **more: Any) -> dict[str, Any]:
        return default_to_dict(
            self,
            model=self.model,
            api_base_url=self.api_base_url,
            api_key=self.api_key,
            dimension=self.dimension,
            timeout=self.timeout,
            max_retries=self.max_retries,
            **more,
        )

    def _request(self, texts: Sequence[str]) -> dict[str, Any]:
        return {"model": self.model, "input": list(texts), "encoding_format": "float"}

    def _vectors(self, response: Any, *, count: int) -> list[list[float]]:
        """Unit vectors in the order of the texts: distances do not look at lengths, but averages and joins do."""
        try:
            found = [one.embedding for one in sorted(response.data, key=lambda one: one.index)]
            matrix = np.asarray(found, dtype=np.float64)
        except (AttributeError, TypeError, ValueError):
            raise self._complaint("sent something that is not a list of embeddings", _PROTOCOL) from None
        if matrix.ndim != 2 or len(matrix) != count or not np.isfinite(matrix).all():
            raise self._complaint("sent something that is not a list of embeddings", _PROTOCOL)
        if self.dimension is not None and matrix.shape[1] != self.dimension:
            raise ConfigurationError(
                f"Vectors of {self.dimension} dimensions were expected of {self.model}, as its table holds them, but "
                f"{urlsplit(self.api_base_url).hostname} gives {matrix.shape[1]}.",
                hint="Check EMBEDDING_BASE_URL, or register what it serves: `python synapse.py models add NAME`.",
            )
        lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
        if not lengths.all():
            raise self._complaint("sent an embedding that is all zeros, which is near to nothing", _PROTOCOL)
        return [[float(number) for number in row] for row in matrix / lengths]

    def _failure(self, exc: Exception) -> EmbeddingModelError:
        if isinstance(exc, EmbeddingModelError):
            return exc
        if isinstance(exc, openai.APITimeoutError):
            return self._complaint(
                f"did not answer within {self.timeout:g} seconds", "EMBEDDING_TIMEOUT sets the limit."
            )
        if isinstance(exc, openai.RateLimitError):
            return self._complaint("is busy or out of quota (429)", "Try again later.")
        if isinstance(exc, openai.AuthenticationError | openai.PermissionDeniedError):
            return self._complaint(f"refused the key ({exc.status_code})", "Check EMBEDDING_API_KEY.")
        if isinstance(exc, openai.NotFoundError):
            return self._complaint(
                f"knows no model {self.model!r} (404)", "Check EMBEDDING_BASE_URL and EMBEDDING_MODEL."
            )
        if isinstance(exc, openai.BadRequestError | openai.UnprocessableEntityError):
            return self._complaint(
                f"refused a request ({exc.status_code})",
                "A text may be too long for it, or a batch too large: lower EMBEDDING_BATCH_SIZE.",
            )
        if isinstance(exc, openai.APIStatusError):
            return self._complaint(f"failed ({exc.status_code})", "Try again later.")
        if isinstance(exc, openai.APIConnectionError):
            return self._complaint("could not be reached", "Check EMBEDDING_BASE_URL, and that the server runs.")
        return self._complaint("sent something that is not a list of embeddings", _PROTOCOL)

    def _complaint(self, what: str, hint: str) -> EmbeddingModelError:
        return EmbeddingModelError(
            f"The embedding model's server {urlsplit(self.api_base_url).hostname} {what}.", hint=hint
        )


_PROTOCOL = "Check that EMBEDDING_BASE_URL is OpenAI-compatible (it often ends in /v1)."


@component
class RemoteTextEmbedder(_Remote, OpenAITextEmbedder):
    """
    Embeds a question on a server that speaks OpenAI's embeddings protocol.

    :param model: Name of the model on that server.
    :param api_base_url: The server.
    :param api_key: Its key; local servers need none.
    :param dimension: The length that its vectors must have; `None` means any.
    :param timeout: Seconds until an answer must have come.
    :param max_retries: How often a busy or broken server is asked again.
    """

    def __init__(
        self,
        *,
        model: str,
        api_base_url: str,
        api_key: Secret | None = None,
        dimension: int | None = None,
        timeout: float = 30.0,
        max_retries: int = RETRIES,
    ) -> None:
        OpenAITextEmbedder.__init__(
            self,
            api_key=api_key,  # type: ignore[arg-type]  # see _client_kwargs
            model=model,
            api_base_url=api_base_url,
            timeout=timeout,
            max_retries=max_retries,
        )
        self.dimension = dimension
        self._loop: asyncio.AbstractEventLoop | None = None

    def to_dict(self) -> dict[str, Any]:
        """Serialize the component to a dictionary."""
        return self._saved()

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, Any]:
        """
        Embed.

        :param text: The question.
        :returns: `embedding`, of length 1.
        :raises EmbeddingModelError: If the server failed.
        :raises ConfigurationError: If its vectors have another dimension than the table's.
        """
        return {"embedding": self.embed([text])[0]}

    @component.output_types(embedding=list[float])
    async def run_async(self, text: str) -> dict[str, Any]:
        """The same, without blocking the event loop."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self.async_client, self._loop = None, loop  # a client's connections belong to the loop that made them
        await self.warm_up_async()
        assert self.async_client is not None
        try:
            response = await self.async_client.embeddings.create(**self._request([text]))
        except Exception as exc:
            raise self._failure(exc) from None  # its cause may quote the request
        return {"embedding": self._vectors(response, count=1)[0]}

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Embed several texts in one request."""
        self.warm_up()
        assert self.client is not None
        try:
            response = self.client.embeddings.create(**self._request(texts))
        except Exception as exc:
            raise self._failure(exc) from None
        return self._vectors(response, count=len(texts))


@component
class RemoteDocumentEmbedder(_Remote, OpenAIDocumentEmbedder):
    """
    Embeds documents on such a server, their title and heading before their content.

    :param model: Name of the model on that server.
    :param api_base_url: The server.
    :param api_key: Its key; local servers need none.
    :param dimension: The length that its vectors must have; `None` means any.
    :param batch_size: Documents per request.
    :param meta_fields_to_embed: Metadata that is embedded with the content; `None` means title and heading.
    :param timeout: Seconds until an answer must have come.
    :param max_retries: How often a busy or broken server is asked again.
    """

    def __init__(
        self,
        *,
        model: str,
        api_base_url: str,
        api_key: Secret | None = None,
        dimension: int | None = None,
        batch_size: int = 32,
        meta_fields_to_embed: list[str] | None = None,
        timeout: float = 30.0,
        max_retries: int = RETRIES,
    ) -> None:
        OpenAIDocumentEmbedder.__init__(
            self,
            api_key=api_key,  # type: ignore[arg-type]  # see _client_kwargs
            model=model,
            api_base_url=api_base_url,
            batch_size=batch_size,
            meta_fields_to_embed=["title", "heading"] if meta_fields_to_embed is None else meta_fields_to_embed,
            progress_bar=False,
            timeout=timeout,
            max_retries=max_retries,
        )
        self.dimension = dimension

    def to_dict(self) -> dict[str, Any]:
        """Serialize the component to a dictionary."""
        return self._saved(batch_size=self.batch_size, meta_fields_to_embed=self.meta_fields_to_embed)

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """
        Embed.

        :param documents: Documents with content.
        :returns: `documents` with their embeddings, in the same order.
        :raises EmbeddingModelError: If the server failed.
        :raises ConfigurationError: If its vectors have another dimension than the table's.
        """
        self.warm_up()
        assert self.client is not None
        texts, vectors = [self._text(document) for document in documents], list[list[float]]()
        for batch in (texts[start : start + self.batch_size] for start in range(0, len(texts), self.batch_size)):
            try:
                response = self.client.embeddings.create(**self._request(batch))
            except Exception as exc:
                raise self._failure(exc) from None  # its cause may quote the request, and with it documents
            vectors += self._vectors(response, count=len(batch))
        pairs = zip(documents, vectors, strict=True)
        return {"documents": [replace(document, embedding=vector) for document, vector in pairs]}

    @component.output_types(documents=list[Document])
    async def run_async(self, documents: list[Document]) -> dict[str, Any]:
        """The same, in a thread: nobody waits for it but a program that indexes."""
        return await asyncio.to_thread(self.run, documents)

    def _text(self, document: Document) -> str:
        """As sentence-transformers' embedder puts it together, so that both give the same vectors."""
        parts = [str(value) for key in self.meta_fields_to_embed if (value := document.meta.get(key)) is not None]
        return self.embedding_separator.join([*parts, document.content or ""])
