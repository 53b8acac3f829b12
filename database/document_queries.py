"""What the document store asks PostgreSQL, as statements with their parameters: shared by its sync and async methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from database.document_rows import json_text, vector
from database.errors import ConfigurationError, InvalidInputError
from database.filters import condition
from database.sql import statements

COLUMNS = ("id", "content", "blob_data", "blob_meta", "blob_mime_type", "meta")
OPERATORS = {"cosine_similarity": SQL("<=>"), "inner_product": SQL("<#>"), "l2_distance": SQL("<->")}
SCORES = {"cosine_similarity": SQL("1 - distance"), "inner_product": SQL("-distance"), "l2_distance": SQL("distance")}

MAX_EF_SEARCH = 1000
CANDIDATES = 30
"""How many documents each leg of a search proposes, at least; on SciFact, 50 gain 0.003 nDCG@10 for 1.6 times the time."""

MAX_TERMS = 32
"""How many different words of a question are looked for."""

MAX_MATCHES = 12_000
"""How many matches of a question's words are looked at in all, at about 2 us each."""

MAX_QUESTION = 20_000
"""Characters of a question that are searched for words; PostgreSQL gives up at 1 MB of them."""

_SQL = statements(Path(__file__).with_suffix(".sql"))


@dataclass(frozen=True, kw_only=True)
class Query:
    """A statement, its parameters, and the PostgreSQL settings that hold for it alone."""

    statement: Composed
    params: dict[str, Any] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DocumentsTable:
    """
    A documents table, and how it is searched.

    :param schema_name: Its schema.
    :param name: Its name.
    :param dimension: Dimension of its embeddings.
    :param vector_type: `vector` or `halfvec`.
    :param vector_function: What its embeddings are compared by.
    :param language: Text search configuration of its keyword index.
    :param exact: Whether every embedding is compared, without the HNSW index.
    :param ef_search: Candidate list of an HNSW search; raised to the number of documents wanted.
    """

    schema_name: str
    name: str
    dimension: int
    vector_type: str
    vector_function: str
    language: str
    exact: bool
    ef_search: int

    @property
    def identifier(self) -> Identifier:
        """Its name, for statements."""
        return Identifier(self.schema_name, self.name)

    def all_documents(self, filters: dict[str, Any] | None) -> Query:
        """Every document that passes, with its embedding."""
        return self._filtered("all_documents", filters, columns=_columns(embedding=True))

    def count(self, filters: dict[str, Any] | None = None) -> Query:
        """How many documents pass."""
        return self._filtered("count_documents", filters)

    def delete(self, ids: Sequence[str]) -> Query:
        """Remove documents by id."""
        return Query(statement=self._formatted("delete_documents"), params={"ids": list(ids)})

    def delete_matching(self, filters: dict[str, Any]) -> Query:
        """Remove the documents that pass."""
        if not filters:
            raise InvalidInputError(
                "Deleting by filter needs a filter, but was given none.",
                hint="delete_all_documents() deletes every document.",
            )
        return self._filtered("delete_documents_by_filter", filters)

    def delete_all(self) -> Query:
        """Empty the table."""
        return Query(statement=self._formatted("delete_all_documents"))

    def drop(self) -> Query:
        """Drop the table."""
        return Query(statement=self._formatted("drop_table"))

    def update_matching(self, filters: dict[str, Any], meta: dict[str, Any]) -> Query:
        """Overwrite keys of `meta` in the documents that pass."""
        if not isinstance(meta, dict) or not meta:
            raise InvalidInputError("meta must be a mapping with at least one key.")
        query = self._filtered("update_documents_by_filter", filters)
        return Query(statement=query.statement, params={**query.params, "meta": json_text(meta, where="meta")})

    def nearest(
        self,
        embedding: Sequence[float],
        *,
        filters: dict[str, Any] | None,
        top_k: int,
        vector_function: str | None,
        with_embedding: bool,
    ) -> Query:
        """The documents nearest to an embedding."""
        function = vector_function or self.vector_function
        if function not in OPERATORS:
            raise InvalidInputError(f"vector_function must be one of {', '.join(OPERATORS)}, but is {function!r}.")
        query = self._filtered(
            "nearest_documents_exactly" if self.exact else "nearest_documents",
            filters,
            columns=_columns(embedding=with_embedding),
            operator=OPERATORS[function],
            score=SCORES[function],
            vector_type=SQL(self.vector_type),
        )
        params = {"embedding": self._query_vector(embedding), "top_k": _checked(top_k)}
        return Query(
            statement=query.statement, params={**query.params, **params}, settings=self._settings(candidates=top_k)
        )

    def with_words(
        self, question: str, *, filters: dict[str, Any] | None, top_k: int, with_embedding: bool = False
    ) -> Query:
        """The documents that have words of a question, best first by BM25."""
        query = self._worded("keyword_documents", filters, columns=_columns(embedding=with_embedding))
        params = {"candidates": max(2 * _checked(top_k), CANDIDATES), "top_k": top_k, **_question_params(question)}
        return Query(
            statement=query.statement, params={**query.params, **params}, settings=self._settings(candidates=top_k)
        )

    def hybrid(self, question: str, embedding: Sequence[float], *, filters: dict[str, Any] | None, top_k: int) -> Query:
        """The documents that are best by embedding and by words together."""
        if self.vector_function == "l2_distance":
            raise InvalidInputError(
                "A hybrid search needs scores of which large is good, but the store compares by l2_distance.",
                hint="Use cosine_similarity or inner_product.",
            )
        query = self._worded(
            "hybrid_documents",
            filters,
            columns=_columns(embedding=False),
            operator=OPERATORS[self.vector_function],
            score=SCORES[self.vector_function],
            vector_type=SQL(self.vector_type),
        )
        candidates = max(_checked(top_k), CANDIDATES)
        params = {
            "embedding": self._query_vector(embedding),
            "candidates": candidates,
            "top_k": top_k,
            **_question_params(question),
        }
        return Query(
            statement=query.statement, params={**query.params, **params}, settings=self._settings(candidates=candidates)
        )

    def _filtered(self, name: str, filters: dict[str, Any] | None, **parts: Composable) -> Query:
        where, params = condition(filters)
        return Query(statement=self._formatted(name, condition=where, **parts), params=params)

    def _formatted(self, name: str, **parts: Composable) -> Composed:
        return SQL(_SQL[name]).format(table=self.identifier, **parts)

    def _worded(self, name: str, filters: dict[str, Any] | None, **parts: Composable) -> Query:
        where, params = condition(filters)
        language, table_name = Literal(self.language), Literal(self.identifier.as_string())
        words = self._formatted("words", condition=where, language=language, table_name=table_name)
        keyword_score = SQL(_SQL["keyword_score"]).format(language=language)
        statement = self._formatted(name, condition=where, words=words, keyword_score=keyword_score, **parts)
        return Query(statement=statement, params=params)

    def _query_vector(self, embedding: Sequence[float]) -> Any:
        values = vector(embedding, vector_type=self.vector_type, where="query_embedding")
        if values.dimensions() != self.dimension:
            raise InvalidInputError(
                f"Table {self.name} holds {self.vector_type}({self.dimension}),"
                f" but query_embedding has {values.dimensions()}.",
                hint="Embed questions with the model that embedded the documents.",
            )
        return values

    def _settings(self, *, candidates: int) -> dict[str, str]:
        """
        Relaxed order finds more under a filter than strict order for the same work; the statements sort again.

        Documents lie on solid state disks or in memory: the planner's default price of a random page would keep it from
        the index. Compiling a statement that runs for a millisecond costs more than it gains.
        """
        ef_search = min(max(self.ef_search, candidates), MAX_EF_SEARCH)
        return {
            "hnsw.ef_search": str(ef_search),
            "hnsw.iterative_scan": "relaxed_order",
            "random_page_cost": "1.1",
            "jit": "off",
        }


def checked_ef_search(value: int | None) -> int:
    """
    Return the `ef_search` to use; `None` means pgvector's default.

    :raises ConfigurationError: If it is not between 1 and 1000.
    """
    if value is None:
        return 40
    if not 1 <= value <= MAX_EF_SEARCH:
        raise ConfigurationError(f"hnsw_ef_search must be between 1 and {MAX_EF_SEARCH}, but is {value}.")
    return value


def _checked(top_k: int) -> int:
    if not isinstance(top_k, int) or top_k < 1:
        raise InvalidInputError(f"top_k must be a whole number of at least 1, but is {top_k!r}.")
    return top_k


def _columns(*, embedding: bool) -> Composed:
    return SQL(", ").join(map(Identifier, (*COLUMNS, "embedding") if embedding else COLUMNS))


def _question_params(question: str) -> dict[str, Any]:
    if not isinstance(question, str) or not question:
        raise InvalidInputError("query must be a text that is not empty.")
    text = question[:MAX_QUESTION].replace("\x00", " ").encode(errors="replace").decode()
    return {"question": text, "max_terms": MAX_TERMS, "max_matches": MAX_MATCHES}
