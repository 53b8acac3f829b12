"""Writes sources with their chunks."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict
from haystack.utils import Secret, deserialize_secrets_inplace

from components.chunk_ids import chunk_id
from components.model_files import DEFAULT_MODEL
from database.connection import database_for
from database.errors import InvalidInputError
from database.ledger import IndexedSource, Ledger, SourceState
from database.models import registered_model
from database.tenancy import DEFAULT_TENANT

_DATABASE_URL = Secret.from_env_var("DATABASE_URL", strict=False)


@component
class SourceWriter:
    """
    Writes each source's text, its chunks, the removal of its stale chunks and its ledger row in one transaction.

    Haystack's `DocumentWriter` writes documents alone: the ledger could then say something else than the table.

    :param model: The embedding model that the chunks were embedded with; it must be registered.
    :param connection_string: Any form that libpq takes; resolved to nothing, it means the embedded server under `home`.
    :param home: Home folder of the embedded server.
    :param fingerprint: Version of what made the chunks, for the ledger.
    :param tenant: Whose sources they are.
    """

    def __init__(
        self,
        *,
        model: str = DEFAULT_MODEL,
        connection_string: Secret = _DATABASE_URL,
        home: str | None = None,
        fingerprint: str = "",
        tenant: str = DEFAULT_TENANT,
    ) -> None:
        self.model = model
        self.connection_string = connection_string
        self.home = home
        self.fingerprint = fingerprint
        self.tenant = tenant
        self._ledger: Ledger | None = None

    def to_dict(self) -> dict[str, Any]:
        """Serialise; a connection string that was given as a text is refused, since it may hold a password."""
        return default_to_dict(
            self,
            model=self.model,
            connection_string=self.connection_string.to_dict(),
            home=self.home,
            fingerprint=self.fingerprint,
            tenant=self.tenant,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SourceWriter:
        """Deserialise."""
        deserialize_secrets_inplace(data["init_parameters"], ["connection_string"])
        return default_from_dict(cls, data)  # type: ignore[no-any-return]

    def warm_up(self) -> None:
        """Find the database and the model's table, once."""
        if self._ledger is None:
            database = database_for(self.connection_string.resolve_value(), home=self.home).for_tenant(self.tenant)
            self._ledger = Ledger(database, model=registered_model(database, self.model))

    @component.output_types(chunks=int, sources=list[str])
    def run(self, documents: list[Document], sources: list[Document]) -> dict[str, Any]:
        """
        Write.

        :param documents: Chunks with embeddings, each with its `source` in `meta`.
        :param sources: The converted sources that they belong to.
        :returns: How many chunks were written, and the names of the sources.
        :raises InvalidInputError: If a chunk's source is not among `sources`.
        :raises DatabaseError: If the database refuses; then nothing of this call was written.
        """
        self.warm_up()
        assert self._ledger is not None
        chunks: dict[str, list[Document]] = defaultdict(list)
        for document in documents:
            chunks[document.meta["source"]].append(document)
        if strangers := chunks.keys() - {source.meta["source"] for source in sources}:
            raise InvalidInputError(f"Chunks with their sources were expected, but {min(strangers)} is not among them.")
        self._ledger.write([self._indexed(source, chunks[source.meta["source"]]) for source in sources])
        return {"chunks": len(documents), "sources": [source.meta["source"] for source in sources]}

    def _indexed(self, source: Document, chunks: list[Document]) -> IndexedSource:
        name, file = source.meta["source"], source.meta["file"]
        state = SourceState(
            source=name,
            root=name,
            size=file["size"],
            mtime_ns=file["mtime_ns"],
            checked_at_ns=file["checked_at_ns"],
            content_hash=source.meta["content_hash"],
            meta_hash=file["meta_hash"],
            fingerprint=self.fingerprint,
        )
        return IndexedSource(
            state=state,
            title=source.meta["title"],
            mime_type=source.meta["mime_type"],
            text=source.content or "",
            documents=[replace(chunk, id=chunk_id(name, position, chunk)) for position, chunk in enumerate(chunks)],
        )
