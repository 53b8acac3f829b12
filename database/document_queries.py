"""What the document store asks PostgreSQL, as statements with their parameters: shared by its sync and async methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from psycopg.sql import SQL, Composable, Composed, Identifier

from database.document_rows import json_text
from database.errors import ConfigurationError, InvalidInputError
from database.filters import condition
from database.sql import statements

COLUMNS = ("id", "content", "blob_data", "blob_meta", "blob_mime_type", "meta")

MAX_EF_SEARCH = 1000

Learn: TypeAlias = Callable[[list[dict[str, Any]]], None]
Aside: TypeAlias = tuple[Composed, Learn]

_SQL = statements(Path(__file__).with_suffix(".sql"))


@dataclass(frozen=True, kw_only=True)
class Query:
    """
    A statement, its parameters, and the PostgreSQL settings that hold for it alone.

    :param learn: Called with the statement's rows.
    :param also: Further statements with the same parameters, in the same round trip, each with what is called with its rows.
    :param enough: Whether rows are an answer.
    :param instead: Makes what to run where they are not.
    """

    statement: Composed
    params: dict[str, Any] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    learn: Learn | None = None
    also: Sequence[Aside] = ()
    enough: Callable[[list[dict[str, Any]]], bool] | None = None
    instead: Callable[[], Query] | None = None

    @property
    def statements(self) -> list[Composed]:
        """What is run."""
        return [self.statement, *(statement for statement, _ in self.also)]

    def after(self, found: list[list[dict[str, Any]]]) -> Query | None:
        """
        Learn from what the statements returned.

        :param found: The rows of each.
        :returns: What to run instead, where the rows are no answer yet.
        """
        if self.learn:
            self.learn(found[0])
        for (_, learn), rows in zip(self.also, found[1:], strict=True):
            learn(rows)
        return self.instead() if self.instead and self.enough and not self.enough(found[0]) else None


@dataclass(frozen=True, kw_only=True)
class DocumentsTable:
    """
    A documents table with its keyword tables.

    :param schema_name: Its schema.
    :param name: Its name.
    :param dimension: Dimension of its embeddings.
    :param vector_type: `vector` or `halfvec`.
    :param vector_function: What its embeddings are compared by.
    :param language: Text search configuration of documents that name no language.
    """

    schema_name: str
    name: str
    dimension: int
    vector_type: str
    vector_function: str
    language: str

    @property
    def identifier(self) -> Identifier:
        """Its name, for statements."""
        return Identifier(self.schema_name, self.name)

    def all_documents(self, filters: dict[str, Any] | None) -> Query:
        """Every document that passes, with its embedding."""
        return self._filtered("all_documents", filters, columns=columns(embedding=True))

    def count(self, filters: dict[str, Any] | None = None) -> Query:
        """How many documents pass."""
        return self._filtered("count_documents", filters)

    def embeddings(self, ids: Sequence[str]) -> Query:
        """The embeddings of documents, by id."""
        return Query(statement=self.formatted(_SQL["embeddings"]), params={"ids": list(ids)})

    def delete(self, ids: Sequence[str]) -> Query:
        """Remove documents by id."""
        return Query(statement=self.formatted(_SQL["delete_documents"]), params={"ids": list(ids)})

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
        return Query(statement=self.formatted(_SQL["delete_all_documents"]))

    def drop(self) -> Query:
        """Drop the table."""
        return Query(statement=self.formatted(_SQL["drop_table"]))

    def update_matching(self, filters: dict[str, Any], meta: dict[str, Any]) -> Query:
        """Overwrite keys of `meta` in the documents that pass."""
        if not isinstance(meta, dict) or not meta:
            raise InvalidInputError("meta must be a mapping with at least one key.")
        query = self._filtered("update_documents_by_filter", filters)
        return Query(statement=query.statement, params={**query.params, "meta": json_text(meta, where="meta")})

    def _filtered(self, name: str, filters: dict[str, Any] | None, **parts: Composable) -> Query:
        where, params = condition(filters)
        return Query(statement=self.formatted(_SQL[name], condition=where, **parts), params=params)

    def formatted(self, statement: str, **parts: Composable) -> Composed:
        """A statement with the names of this table and of its keyword tables, and with other parts."""
        names = {
            "table": self.identifier,
            "keywords": Identifier(self.schema_name, f"{self.name}_keywords"),
            "terms": Identifier(self.schema_name, f"{self.name}_terms"),
        }
        return SQL(statement).format(**names, **parts)


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


def columns(*, embedding: bool) -> Composed:
    """The columns that become a document, as a list for SELECT."""
    return SQL(", ").join(map(Identifier, (*COLUMNS, "embedding") if embedding else COLUMNS))
