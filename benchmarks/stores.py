"""Servers and stores of the benchmarks: an embedded server of their own, our store, the plain one, and how tables are filled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from haystack import Document
from haystack.utils import Secret
from haystack_integrations.document_stores.pgvector import PgvectorDocumentStore
from psycopg.sql import SQL, Identifier

from benchmarks.machine import note_server
from benchmarks.measuring import temporary_home
from database.bulk_load import load_documents
from database.document_store import SynapseDocumentStore
from database.embedded import EmbeddedServer

DIMENSION = 384
TABLE = "documents_benchmark"
PLAIN_TABLE = "documents_plain"
BATCH = 10_000

Progress = Callable[[str], None]


@contextmanager
def benchmark_server() -> Iterator[EmbeddedServer]:
    """An embedded server with the settings that users get, in a home of its own, removed afterwards."""
    with temporary_home() as home:
        server = EmbeddedServer(home)
        try:
            server.start()
            with owner(server) as connection:
                note_server(connection)
            yield server
        finally:
            server.stop()


@contextmanager
def our_store(server: EmbeddedServer, *, table: str = TABLE, **options: Any) -> Iterator[SynapseDocumentStore]:
    """Our store on a new table of it, dropped and closed afterwards."""
    secret = Secret.from_token(server.conninfo(owner=True))
    store = SynapseDocumentStore(connection_string=secret, table_name=table, embedding_dimension=DIMENSION, **options)
    store.create_table()
    try:
        yield store
    finally:
        with suppress(Exception):
            store.delete_table()
        store.close()


def view_of(server: EmbeddedServer, *, table: str = TABLE, **options: Any) -> SynapseDocumentStore:
    """Another of our stores on a table that exists; its pool is the server's."""
    secret = Secret.from_token(server.conninfo(owner=True))
    return SynapseDocumentStore(connection_string=secret, table_name=table, embedding_dimension=DIMENSION, **options)


def plain_store(
    server: EmbeddedServer, *, table: str = PLAIN_TABLE, shares_ours: bool = False, **options: Any
) -> PgvectorDocumentStore:
    """
    The plain store.

    :param server: Where.
    :param table: Its table, made at its first use where it is missing.
    :param shares_ours: Whether it only searches our table by embedding. It is then told that the HNSW index is its keyword
        index, or it would build one there that nothing needs.
    :param options: What else its constructor takes.
    """
    index = f"{table}_hnsw_index"
    return PgvectorDocumentStore(
        connection_string=Secret.from_token(server.conninfo(owner=True)),
        table_name=table,
        embedding_dimension=DIMENSION,
        search_strategy=options.pop("search_strategy", "hnsw"),
        hnsw_index_name=index,
        keyword_index_name=index if shares_ours else f"{table}_keyword_index",
        **options,
    )


def owner(server: EmbeddedServer) -> psycopg.Connection[Any]:
    """A connection of the owner's, in autocommit."""
    return psycopg.connect(server.conninfo(owner=True), autocommit=True)


def fill(server: EmbeddedServer, store: SynapseDocumentStore, documents: Iterable[Document]) -> None:
    """Load a new table, its indexes built afterwards, and leave it with statistics."""
    bulk_write(store, documents)
    settle(server, store.table_name)


def bulk_write(store: SynapseDocumentStore, documents: Iterable[Document], progress: Progress | None = None) -> None:
    """
    Load a new table the way that migrations and new models do.

    :param progress: Called with the step that is at work: `rows`, then others.
    """
    load_documents(store.database, store, documents, progress=(lambda at: progress(at.step)) if progress else None)


def settle(server: EmbeddedServer, table: str) -> None:
    """Leave a table as autovacuum would after a while: vacuumed, with statistics; and write what waits to be written."""
    with owner(server) as connection:
        connection.execute(SQL("VACUUM ANALYZE {}").format(Identifier(table)))
        connection.execute("CHECKPOINT")
