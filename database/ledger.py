"""
What was indexed, from which bytes, by which version: written in the same transaction as the chunks themselves.

Other tools keep the two apart, and after a crash neither knows what the other holds. Here a source's converted text,
its chunks, the removal of its stale chunks and its row are there together, or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg.sql import SQL, Composed, Identifier
from psycopg.types.json import Jsonb

from database.document_rows import write_rows
from database.sql import statements

if TYPE_CHECKING:
    from haystack import Document
    from psycopg import Connection

    from database.connection import Database
    from database.models import EmbeddingModel

_SQL = statements(Path(__file__).with_suffix(".sql"))


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceState:
    """
    One row of the ledger.

    :param source: Absolute path of a file, or any name that a program gave.
    :param root: The root that it was found under; empty for what a program indexed.
    :param size: Bytes of the file.
    :param mtime_ns: Its modification time, nanoseconds since the epoch.
    :param checked_at_ns: When size and time were read, likewise.
    :param content_hash: SHA-256 of its bytes, hexadecimal.
    :param meta_hash: SHA-256 of the metadata from outside the file, hexadecimal.
    :param fingerprint: Version of the converter, chunker and model that made the chunks.
    :param reason: Why it is quarantined; `None` means that it is indexed.
    :param chunks: How many chunks it has.
    """

    source: str
    root: str
    size: int
    mtime_ns: int
    checked_at_ns: int
    content_hash: str
    meta_hash: str
    fingerprint: str
    reason: str | None = None
    chunks: int = 0


@dataclass(frozen=True, kw_only=True)
class IndexedSource:
    """
    What is written for one source, all of it or nothing.

    :param state: Its row in the ledger; the number of chunks is taken from `documents`.
    :param title: Its title, where it has one.
    :param mime_type: What it was converted from.
    :param text: Its converted text, which the chunks' spans point into.
    :param documents: Its chunks in reading order, with embeddings; ids must not repeat.
    """

    state: SourceState
    title: str | None
    mime_type: str
    text: str
    documents: Sequence[Document]


class Ledger:
    """
    The ledger of one embedding model.

    :param database: Where it is.
    :param model: Whose documents table it goes with.
    """

    def __init__(self, database: Database, *, model: EmbeddingModel) -> None:
        self.database = database
        self.model = model

    def read(self, roots: Sequence[str] | None = None) -> dict[str, SourceState]:
        """
        What is known, by source.

        :param roots: Only sources at or below these paths; `None` means all.
        """
        name = "all_states" if roots is None else "states_below"
        rows = self.database.read(_SQL[name], {"model": self.model.name, "roots": list(roots or [])})
        return {row["source"]: SourceState(**row) for row in rows}

    def write(self, sources: Sequence[IndexedSource]) -> None:
        """
        Write sources with their texts and chunks, and remove their stale chunks, in one transaction.

        :raises InvalidInputError: If PostgreSQL cannot hold a chunk as it is; then nothing of this call was written.
        :raises DatabaseError: If the database refuses; likewise.
        """
        if not sources:
            return
        names = [source.state.source for source in sources]
        documents = [document for source in sources for document in source.documents]
        chunks = [(s.state.source, d.id, position) for s in sources for position, d in enumerate(s.documents)]
        with self.database.connection() as connection:
            with connection.pipeline():
                self._lock(connection, names)
                self._delete_documents(connection, names, kept=[document.id for document in documents])
            write_rows(
                connection,
                self.model.table_name,
                documents,
                dimension=self.model.dimension,
                vector_type=self.model.vector_type,
            )
            with connection.pipeline():  # one round trip, however many sources
                for source in sources:
                    self._upsert(
                        connection,
                        replace(source.state, reason=None, chunks=len(source.documents)),
                        title=source.title,
                        mime_type=source.mime_type,
                    )
                    connection.execute(_SQL["upsert_text"], self._of(source=source.state.source, text=source.text))
                connection.execute(_SQL["delete_chunk_numbers"], self._of(sources=names))
                columns = [list(column) for column in zip(*chunks, strict=True)] or [[], [], []]
                connection.execute(
                    _SQL["insert_chunk_numbers"], self._of(sources=columns[0], ids=columns[1], positions=columns[2])
                )

    def quarantine(self, states: Sequence[SourceState]) -> None:
        """Keep sources out, each with its reason; chunks of an earlier good version go in the same transaction."""
        names = [state.source for state in states]
        with self.database.connection() as connection, connection.pipeline():
            self._lock(connection, names)
            self._delete_documents(connection, names)
            connection.execute(_SQL["delete_chunk_numbers"], self._of(sources=names))
            connection.execute(_SQL["delete_texts"], self._of(sources=names))
            for state in states:
                self._upsert(connection, replace(state, chunks=0), title=None, mime_type=None)

    def touch(self, states: Sequence[SourceState]) -> None:
        """Note a new size and time of sources whose bytes are the same."""
        with self.database.connection() as connection, connection.cursor() as cursor:
            cursor.executemany(_SQL["touch"], [self._of(**asdict(state)) for state in states])

    def move(self, moves: Sequence[tuple[str, SourceState, dict[str, Any]]]) -> None:
        """
        Give sources their new names without embedding anything.

        :param moves: Old name, new state, and the keys of `meta` to overwrite in its chunks; the old and the new name
            may be the same, to change `meta` alone. What stood under the new name is replaced.
        """
        with self.database.connection() as connection:
            self._lock(connection, [name for old, state, _ in moves for name in (old, state.source)])
            for old, state, changes in moves:
                if connection.execute(_SQL["is_as_planned"], self._of(old=old, **asdict(state))).fetchone() is None:
                    continue  # another run has moved or changed it since
                if old != state.source:
                    self._delete_documents(connection, [state.source])
                    connection.execute(_SQL["delete_sources"], self._of(sources=[state.source]))
                connection.execute(_SQL["rename"], self._of(old=old, **asdict(state)))
                connection.execute(self._on_table("move_chunks"), self._of(source=state.source, changes=Jsonb(changes)))

    def remove(self, sources: Sequence[str]) -> int:
        """
        Remove sources with their texts and chunks.

        :returns: How many chunks are gone.
        """
        with self.database.connection() as connection:
            self._lock(connection, sources)
            removed = self._delete_documents(connection, sources)
            connection.execute(_SQL["delete_sources"], self._of(sources=list(sources)))
        return removed

    def text(self, source: str) -> str | None:
        """The converted text of a source; `None` where there is none."""
        rows = self.database.read(_SQL["text"], self._of(source=source))
        return rows[0]["text"] if rows else None

    def excerpts(self, spans: Sequence[tuple[str, int, int]]) -> list[str | None]:
        """
        Parts of converted texts, in the order given; `None` where a source has no text. Read where searches read.

        :param spans: Source, and `[start, end)` in code points.
        """
        parameters = self._of(
            sources=[source for source, _, _ in spans],
            starts=[start for _, start, _ in spans],
            lengths=[end - start for _, start, end in spans],
        )
        return [row["excerpt"] for row in self.database.for_reading().read(_SQL["excerpts"], parameters)]

    def known_embeddings(self, ids: Sequence[str]) -> dict[str, Any]:
        """Embeddings, as float32 arrays, of those of these documents that stand already; by document id."""
        rows = self.database.read(self._on_table("known_embeddings"), {"ids": list(ids)})
        return {row["id"]: row["embedding"].to_numpy() for row in rows}

    def sources(self, prefix: str | None = None) -> list[dict[str, Any]]:
        """
        Sources for people to look at: `{source, title, mime_type, chunks, size, reason, indexed_at}`, by name.

        :param prefix: Only this source, or those below this folder.
        """
        return self.database.read(_SQL["list_sources"], self._of(prefix=prefix))

    def chunks(self, source: str) -> list[dict[str, Any]]:
        """The chunks of a source in reading order: `{id, position, content, meta}`."""
        return self.database.read(self._on_table("chunks_of"), self._of(source=source))

    def _of(self, **parameters: Any) -> dict[str, Any]:
        return {"model": self.model.name, **parameters}

    def _on_table(self, name: str) -> Composed:
        return SQL(_SQL[name]).format(table=Identifier(self.model.table_name))

    def _lock(self, connection: Connection[Any], sources: Sequence[str]) -> None:
        connection.execute(_SQL["lock_sources"], self._of(sources=list(sources)))

    def _delete_documents(
        self, connection: Connection[Any], sources: Sequence[str], *, kept: Sequence[str] = ()
    ) -> int:
        parameters = self._of(sources=list(sources), kept=list(kept))
        return connection.execute(self._on_table("delete_stale_documents"), parameters).rowcount

    def _upsert(
        self, connection: Connection[Any], state: SourceState, *, title: str | None, mime_type: str | None
    ) -> None:
        connection.execute(_SQL["upsert_state"], self._of(title=title, mime_type=mime_type, **asdict(state)))
