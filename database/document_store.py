"""
The document store: Haystack's `PgvectorDocumentStore` with its constructor, methods and table layout, on pooled connections.

The parent keeps one connection and shares its cursors between threads; nothing of that is used here. Each operation takes
a connection of its own from the process's pool, and each search carries its settings in its own transaction, so that they
also hold after a reconnect and behind a transaction pooler.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psycopg
from haystack import Document, default_to_dict
from haystack.document_stores.types import DuplicatePolicy
from haystack.utils.auth import Secret
from haystack_integrations.document_stores.pgvector import PgvectorDocumentStore

from database.connection import Database, database_for, wrapped
from database.document_queries import DocumentsTable, Query, checked_ef_search
from database.document_rows import Policy, documents_from_rows, write_rows, write_rows_async
from database.errors import ConfigurationError, DatabaseError, InvalidInputError
from database.index_variants import KnownIndexes
from database.metadata_methods import MetadataMethods
from database.ranking import Ranking
from database.search_plan import SearchPlan, explained, search_plan
from database.search_queries import Searches
from database.store_errors import store_error
from database.tenancy import tenant_of

if TYPE_CHECKING:
    from database.reading import Reader

VectorFunction = Literal["cosine_similarity", "inner_product", "l2_distance"]

_FOLDER = Path(__file__).parent
_FUNCTIONS = {
    "synapse_bind_table": _FOLDER / "tenancy_functions.sql",
    "synapse_create_documents_table": _FOLDER / "create_documents_table.sql",
    "synapse_number": _FOLDER / "filter_functions.sql",
    "synapse_rebuild_keywords": _FOLDER / "keyword_functions.sql",
}
_CREATE_ALONE = "SELECT pg_advisory_xact_lock(hashtext('synapse schema'))"
"""Of several at once, one creates and the others find it done; schema versions take the same lock."""

_CREATE_IN = (
    "SELECT set_config('search_path', quote_ident(%(schema_name)s) || ', ' || current_setting('search_path'), true)"
)
_CREATE = (
    "SELECT synapse_create_documents_table"
    "(%(table_name)s, %(dimension)s, %(vector_type)s, %(language)s, %(m)s, %(ef_construction)s)"
)
_POLICIES: dict[DuplicatePolicy, Policy] = {
    DuplicatePolicy.NONE: "fail",
    DuplicatePolicy.FAIL: "fail",
    DuplicatePolicy.SKIP: "skip",
    DuplicatePolicy.OVERWRITE: "overwrite",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredDocument:
    """
    A document that a hybrid search found.

    :param document: Its `score` is the fused one, 0 to 1 with cosine similarity.
    :param similarity: By the store's vector function; `None` without an embedding, or with one of zeros.
    :param keyword_score: BM25, at least 0; 0 means that it has none of the question's words.
    """

    document: Document
    similarity: float | None
    keyword_score: float


class SynapseDocumentStore(MetadataMethods, PgvectorDocumentStore):  # type: ignore[misc]
    """
    Documents in PostgreSQL with pgvector. Safe to share between threads and event loops.

    Nothing is created implicitly: `create_table()` and the commands create tables.

    :param connection_string: Any form that libpq takes; resolved to nothing, it means the embedded server under `home`.
    :param create_extension: Whether `create_table()` creates the extension, too.
    :param schema_name: Schema of the table; in a tenant's (`public`, `tenant_acme`), the store works as that tenant.
    :param table_name: The table, in exactly the parent's layout.
    :param language: Text search configuration of the keyword index.
    :param embedding_dimension: Dimension of the table's embeddings.
    :param vector_type: `vector` (float32) or `halfvec` (float16).
    :param vector_function: What embeddings are compared by; the tables' index serves cosine similarity.
    :param recreate_table: The parent's; must be false.
    :param search_strategy: `hnsw`, or `exact_nearest_neighbor` to compare every embedding.
    :param hnsw_recreate_index_if_exists: The parent's; must be false.
    :param hnsw_index_creation_kwargs: `m` and `ef_construction` for `create_table()`.
    :param hnsw_index_name: Name of the HNSW index; `None` means the table's name with `_hnsw_index`.
    :param hnsw_ef_search: Candidate list of an HNSW search, 1 to 1000; raised to `top_k` where that is larger.
    :param keyword_index_name: Name of the keyword index; `None` means the table's name with `_keyword_index`.
    :param home: Home folder of the embedded server.
    :param return_embedding: Whether searches return embeddings. `filter_documents` always does.
    :param ranking: Some or all parameters of `Ranking`: `k1`, `b`, `keyword_weight`, `candidates`.
    :param read_connection_string: A standby that all reads may go to, in any form that libpq takes; writes never do.
    :param max_lag: Seconds that what is read there may be behind. What this process wrote itself is always seen.
    :raises ConfigurationError: If an argument has a value that cannot be used.
    """

    def __init__(
        self,
        *,
        connection_string: Secret = Secret.from_env_var(["DATABASE_URL", "PG_CONN_STR"], strict=False),  # noqa: B008
        create_extension: bool = True,
        schema_name: str = "public",
        table_name: str = "documents_all_minilm_l6_v2",
        language: str = "english",
        embedding_dimension: int = 384,
        vector_type: Literal["vector", "halfvec"] = "vector",
        vector_function: VectorFunction = "cosine_similarity",
        recreate_table: bool = False,
        search_strategy: Literal["exact_nearest_neighbor", "hnsw"] = "hnsw",
        hnsw_recreate_index_if_exists: bool = False,
        hnsw_index_creation_kwargs: dict[str, int] | None = None,
        hnsw_index_name: str | None = None,
        hnsw_ef_search: int | None = 200,
        keyword_index_name: str | None = None,
        home: str | None = None,
        return_embedding: bool = False,
        ranking: dict[str, float] | None = None,
        read_connection_string: Secret | None = None,
        max_lag: float = 5.0,
    ) -> None:
        if recreate_table or hnsw_recreate_index_if_exists:
            name = "recreate_table" if recreate_table else "hnsw_recreate_index_if_exists"
            raise ConfigurationError(
                f"{name} must be false: constructing a store creates and drops nothing.",
                hint="Call delete_table() and create_table(), or run `python synapse.py models drop` and `models add`.",
            )
        if search_strategy not in ("hnsw", "exact_nearest_neighbor"):
            raise ConfigurationError(
                f"search_strategy must be hnsw or exact_nearest_neighbor, but is {search_strategy!r}."
            )
        super().__init__(
            connection_string=connection_string,
            create_extension=create_extension,
            schema_name=schema_name,
            table_name=table_name,
            language=language,
            embedding_dimension=embedding_dimension,
            vector_type=vector_type,
            vector_function=vector_function,
            search_strategy=search_strategy,
            hnsw_index_creation_kwargs=hnsw_index_creation_kwargs,
            hnsw_index_name=hnsw_index_name or f"{table_name}_hnsw_index",
            hnsw_ef_search=hnsw_ef_search,
            keyword_index_name=keyword_index_name or f"{table_name}_keyword_index",
        )
        self.home = home
        self.read_connection_string = read_connection_string
        self.max_lag = max_lag
        self.return_embedding = return_embedding
        self._table = DocumentsTable(
            schema_name=schema_name,
            name=table_name,
            dimension=embedding_dimension,
            vector_type=vector_type,
            vector_function=vector_function,
            language=language,
        )
        self.ranking = Ranking.of(ranking)
        self._searches = Searches(
            table=self._table,
            exact=search_strategy == "exact_nearest_neighbor",
            ef_search=checked_ef_search(hnsw_ef_search),
            ranking=self.ranking,
            indexes=KnownIndexes(self._table.identifier, vector_type=vector_type),
        )

    def to_dict(self) -> dict[str, Any]:
        """Serialize the store; a connection string given as a token is refused."""
        standby = self.read_connection_string
        return default_to_dict(
            self,
            **super().to_dict()["init_parameters"],
            home=self.home,
            return_embedding=self.return_embedding,
            ranking=self.ranking.to_dict(),
            read_connection_string=standby.to_dict() if standby else None,
            max_lag=self.max_lag,
        )

    @property
    def database(self) -> Database:
        """The database with its pool, which all stores of this process on it share, as the schema's tenant sees it."""
        database = database_for(self.connection_string.resolve_value() or None, home=self.home)
        tenant = tenant_of(self.schema_name)
        return database if tenant is None else database.for_tenant(tenant)

    @property
    def reading(self) -> Database | Reader:
        """What searches read from: the standby, or the database where there is none."""
        standby = self.read_connection_string.resolve_value() if self.read_connection_string else None
        return self.database.reading_from(standby, max_lag=self.max_lag).for_reading()

    def close(self) -> None:
        """Close the process's connections to this database; the next use opens them again."""
        self.database.close()

    async def close_async(self) -> None:
        """Close the running event loop's connections to this database; the next use opens them again."""
        await self.database.close_async()

    def _ensure_db_setup(self) -> None:
        """The parent's shared connection is never opened."""

    async def _ensure_db_setup_async(self) -> None:
        """The parent's shared connection is never opened."""

    # Tables

    def create_table(self) -> None:
        """
        Create the extension, the table and its indexes where they are missing; needs the right to create.

        :raises ConfigurationError: If the store's arguments ask for another table than the one that is created.
        :raises StoreError: If PostgreSQL refuses.
        """
        creation = self._creation()
        database = self.database
        try:
            with psycopg.connect(database.conninfo) as connection:  # not the pool's, which need the extension
                connection.execute(_CREATE_ALONE)
                if self.create_extension:
                    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
                for function, path in _FUNCTIONS.items():
                    if not connection.execute("SELECT to_regproc(%s)", (function,)).fetchone()[0]:  # type: ignore[index]
                        connection.execute(path.read_bytes())
                connection.execute(_CREATE_IN, {"schema_name": self.schema_name})
                connection.execute(_CREATE, creation)
        except psycopg.Error as exc:
            raise store_error(wrapped(exc, name=database.name), table=self._table) from exc

    async def create_table_async(self) -> None:
        """`create_table`, for asyncio."""
        await asyncio.to_thread(self.create_table)

    def delete_table(self) -> None:
        """Drop the table with all its documents."""
        self._write(self._table.drop())

    async def delete_table_async(self) -> None:
        """`delete_table`, for asyncio."""
        await self._write_async(self._table.drop())

    def _creation(self) -> dict[str, Any]:
        table, kwargs = self.table_name, self.hnsw_index_creation_kwargs
        if self.vector_function != "cosine_similarity":
            raise ConfigurationError(
                f"create_table() makes an index for cosine_similarity, but the store compares by {self.vector_function}.",
                hint="Create the table with SQL or with a plain PgvectorDocumentStore; this store works on it as it is.",
            )
        for name, expected in (
            (self.hnsw_index_name, f"{table}_hnsw_index"),
            (self.keyword_index_name, f"{table}_keyword_index"),
        ):
            if name != expected:
                raise ConfigurationError(f"create_table() names the index {expected}, but the store's is {name}.")
        if unknown := set(kwargs) - {"m", "ef_construction"}:
            raise ConfigurationError(
                f"hnsw_index_creation_kwargs takes m and ef_construction, but has {', '.join(unknown)}."
            )
        return {
            "table_name": table,
            "dimension": self.embedding_dimension,
            "vector_type": self.vector_type,
            "language": self.language,
            "m": kwargs.get("m", 8),
            "ef_construction": kwargs.get("ef_construction", 48),
        }

    # Documents

    def count_documents(self) -> int:
        """How many documents there are."""
        return _count(self._read(self._table.count()))

    async def count_documents_async(self) -> int:
        """`count_documents`, for asyncio."""
        return _count(await self._read_async(self._table.count()))

    def count_documents_by_filter(self, filters: dict[str, Any]) -> int:
        """
        How many documents pass a filter.

        :param filters: In Haystack's syntax.
        :raises InvalidFilterError: If the filter is malformed; it is also Haystack's `FilterError`.
        """
        return _count(self._read(self._table.count(filters)))

    async def count_documents_by_filter_async(self, filters: dict[str, Any]) -> int:
        """`count_documents_by_filter`, for asyncio."""
        return _count(await self._read_async(self._table.count(filters)))

    def filter_documents(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """
        The documents that pass a filter, with their embeddings, in no particular order.

        :param filters: In Haystack's syntax; `None` and `{}` let every document pass.
        :raises InvalidFilterError: If the filter is malformed; it is also Haystack's `FilterError`.
        """
        return documents_from_rows(self._read(self._table.all_documents(filters)))

    async def filter_documents_async(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """`filter_documents`, for asyncio."""
        return documents_from_rows(await self._read_async(self._table.all_documents(filters)))

    def embeddings(self, ids: list[str]) -> dict[str, list[float]]:
        """The embeddings of documents, by id; without those that have none."""
        return _embeddings(self._read(self._table.embeddings(ids)))

    async def embeddings_async(self, ids: list[str]) -> dict[str, list[float]]:
        """`embeddings`, for asyncio."""
        return _embeddings(await self._read_async(self._table.embeddings(ids)))

    def write_documents(self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE) -> int:
        """
        Write documents, all of them or none.

        :param documents: Of several with one id, SKIP writes the first and OVERWRITE the last.
        :param policy: What to do with ids that exist; NONE means FAIL.
        :returns: How many were inserted or overwritten.
        :raises InvalidInputError: If PostgreSQL cannot hold a document as it is; the message names it. Also a `ValueError`.
        :raises DuplicateError: If the policy is FAIL and an id exists; also Haystack's `DuplicateDocumentError`.
        """
        _check_documents(documents)
        with self._errors(), self.database.connection() as connection:
            return write_rows(
                connection,
                self._table.identifier,
                documents,
                dimension=self.embedding_dimension,
                vector_type=self.vector_type,
                policy=_POLICIES[policy],
            )

    async def write_documents_async(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """`write_documents`, for asyncio."""
        _check_documents(documents)
        with self._errors():
            async with self.database.connection_async() as connection:
                return await write_rows_async(
                    connection,
                    self._table.identifier,
                    documents,
                    dimension=self.embedding_dimension,
                    vector_type=self.vector_type,
                    policy=_POLICIES[policy],
                )

    def delete_documents(self, document_ids: list[str]) -> None:
        """Remove documents by id; ids that do not exist are ignored."""
        self._write(self._table.delete(document_ids))

    async def delete_documents_async(self, document_ids: list[str]) -> None:
        """`delete_documents`, for asyncio."""
        await self._write_async(self._table.delete(document_ids))

    def delete_all_documents(self) -> None:
        """Empty the table."""
        self._write(self._table.delete_all())

    async def delete_all_documents_async(self) -> None:
        """`delete_all_documents`, for asyncio."""
        await self._write_async(self._table.delete_all())

    def delete_by_filter(self, filters: dict[str, Any]) -> int:
        """
        Remove the documents that pass a filter.

        :param filters: In Haystack's syntax; must not be empty.
        :returns: How many were removed.
        :raises InvalidFilterError: If the filter is malformed or empty.
        """
        return self._write(self._table.delete_matching(filters))

    async def delete_by_filter_async(self, filters: dict[str, Any]) -> int:
        """`delete_by_filter`, for asyncio."""
        return await self._write_async(self._table.delete_matching(filters))

    def update_by_filter(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        """
        Overwrite keys of `meta` in the documents that pass a filter.

        :param filters: In Haystack's syntax; `{}` lets every document pass.
        :param meta: The keys with their new values.
        :returns: How many documents were changed.
        """
        return self._write(self._table.update_matching(filters, meta))

    async def update_by_filter_async(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        """`update_by_filter`, for asyncio."""
        return await self._write_async(self._table.update_matching(filters, meta))

    # Searches

    def dense_search(
        self,
        query_embedding: list[float],
        *,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        vector_function: VectorFunction | None = None,
    ) -> list[Document]:
        """
        The documents nearest to an embedding, nearest first; without those that have none, or one of zeros.

        :param query_embedding: Of the table's dimension.
        :param filters: In Haystack's syntax.
        :param top_k: How many, at least 1.
        :param vector_function: What to compare by; `None` means the store's, which is the one that the index serves.
        :returns: At most `top_k` documents; `score` is the similarity, or with `l2_distance` the distance.
        """
        return documents_from_rows(self._read(self._nearest(query_embedding, filters, top_k, vector_function)))

    async def dense_search_async(
        self,
        query_embedding: list[float],
        *,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        vector_function: VectorFunction | None = None,
    ) -> list[Document]:
        """`dense_search`, for asyncio."""
        query = self._nearest(query_embedding, filters, top_k, vector_function)
        return documents_from_rows(await self._read_async(query))

    def keyword_search(self, query: str, *, filters: dict[str, Any] | None = None, top_k: int = 10) -> list[Document]:
        """
        The documents that have words of a question, best first; no word is required.

        :param query: Any text.
        :param filters: In Haystack's syntax.
        :param top_k: How many, at least 1.
        :returns: At most `top_k` documents; `score` is BM25 over the words' stems.
        """
        return documents_from_rows(self._read(self._worded(query, filters, top_k)))

    async def keyword_search_async(
        self, query: str, *, filters: dict[str, Any] | None = None, top_k: int = 10
    ) -> list[Document]:
        """`keyword_search`, for asyncio."""
        return documents_from_rows(await self._read_async(self._worded(query, filters, top_k)))

    def hybrid_search(
        self,
        query: str,
        query_embedding: list[float],
        *,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
    ) -> list[ScoredDocument]:
        """
        The documents that are best by embedding and by words together, best first; in one statement.

        :param query: The question, any text.
        :param query_embedding: Its embedding, of the table's dimension.
        :param filters: In Haystack's syntax.
        :param top_k: How many, at least 1.
        """
        return _scored(self._read(self._searches.hybrid(query, query_embedding, filters=filters, top_k=top_k)))

    async def hybrid_search_async(
        self,
        query: str,
        query_embedding: list[float],
        *,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
    ) -> list[ScoredDocument]:
        """`hybrid_search`, for asyncio."""
        statement = self._searches.hybrid(query, query_embedding, filters=filters, top_k=top_k)
        return _scored(await self._read_async(statement))

    def explain_search(
        self,
        query: str,
        query_embedding: list[float],
        *,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
    ) -> SearchPlan:
        """
        Run a hybrid search and tell how it went: which way each leg took, the rows looked at, the time.

        :param query: The question, any text.
        :param query_embedding: Its embedding, of the table's dimension.
        :param filters: In Haystack's syntax.
        :param top_k: How many, at least 1.
        """
        self._read(self._searches.asking())
        searched = self._searches.hybrid(query, query_embedding, filters=filters, top_k=top_k)
        plan = search_plan(self._read(explained(searched)), index=self._searches.way(filters))
        if searched.instead and plan.dense.proposed < top_k:
            plan = search_plan(self._read(explained(searched.instead()))).after(plan, wanted=top_k)
        return replace(plan, exact_cost=self._searches.exact_cost(filters))

    # The names that Haystack's retrievers for pgvector call.
    _embedding_retrieval = dense_search
    _embedding_retrieval_async = dense_search_async
    _keyword_retrieval = keyword_search
    _keyword_retrieval_async = keyword_search_async

    def _nearest(
        self, embedding: list[float], filters: dict[str, Any] | None, top_k: int, function: VectorFunction | None
    ) -> Query:
        return self._searches.nearest(
            embedding, filters=filters, top_k=top_k, vector_function=function, with_embedding=self.return_embedding
        )

    def _worded(self, query: str, filters: dict[str, Any] | None, top_k: int) -> Query:
        return self._searches.with_words(query, filters=filters, top_k=top_k, with_embedding=self.return_embedding)

    # Running queries

    def _read(self, query: Query) -> list[dict[str, Any]]:
        with self._errors():
            reading = self.reading
            found = reading.read_all(query.statements, query.params, settings=query.settings)
            while instead := query.after(found):
                query = instead
                found = reading.read_all(query.statements, query.params, settings=query.settings)
            return found[0]

    async def _read_async(self, query: Query) -> list[dict[str, Any]]:
        with self._errors():
            reading = self.reading
            found = await reading.read_all_async(query.statements, query.params, settings=query.settings)
            while instead := query.after(found):
                query = instead
                found = await reading.read_all_async(query.statements, query.params, settings=query.settings)
            return found[0]

    def _write(self, query: Query) -> int:
        with self._errors(), self.database.connection() as connection:
            return connection.execute(query.statement, query.params).rowcount

    async def _write_async(self, query: Query) -> int:
        with self._errors():
            async with self.database.connection_async() as connection:
                return (await connection.execute(query.statement, query.params)).rowcount

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except DatabaseError as exc:
            raise store_error(exc, table=self._table) from exc


def _check_documents(documents: list[Document]) -> None:
    if not isinstance(documents, list) or not all(isinstance(document, Document) for document in documents):
        raise InvalidInputError("documents must be a list of Haystack Documents.")


def _count(rows: list[dict[str, Any]]) -> int:
    return int(rows[0]["documents"])


def _embeddings(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    return {row["id"]: row["embedding"].to_list() for row in rows}


def _scored(rows: list[dict[str, Any]]) -> list[ScoredDocument]:
    return [
        ScoredDocument(document=document, similarity=row["similarity"], keyword_score=row["keyword_score"])
        for document, row in zip(documents_from_rows(rows), rows, strict=True)
    ]
