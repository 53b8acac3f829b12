"""Errors of the document store, which are Haystack's, too."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from haystack.document_stores.errors import DocumentStoreError, DuplicateDocumentError
from psycopg.errors import UndefinedFunction, UndefinedTable

from database.document_rows import DuplicateRowsError
from database.errors import DatabaseError, ExtensionMissingError, SchemaError

if TYPE_CHECKING:
    from database.document_queries import DocumentsTable

_DIMENSIONS = re.compile(r"expected (\d+) dimensions, not (\d+)|different \w+ dimensions (\d+) and (\d+)")
_NO_EXTENSION = re.compile(r'type "(vector|halfvec|sparsevec)" does not exist|extension "vector" is not available')


class StoreError(DatabaseError, DocumentStoreError):
    """What PostgreSQL refused or failed at, as the store raises it; `code` is that of the cause."""

    def __init__(self, message: str, *, hint: str = "", code: str = "database") -> None:
        super().__init__(message, hint=hint)
        self.code = code


class DuplicateError(StoreError, DuplicateDocumentError):
    """Documents that must be new are not."""


def store_error(exc: DatabaseError, *, table: DocumentsTable) -> StoreError:
    """
    Turn an error of the database into the store's, in the words of a table of documents.

    :param exc: With the driver's error as its cause, where there is one.
    :param table: The table that was used.
    """
    if isinstance(exc, StoreError):
        return exc
    if isinstance(exc, DuplicateRowsError):
        return DuplicateError(exc.message, hint=exc.hint, code=exc.code)
    if isinstance(exc.__cause__, UndefinedTable):
        return StoreError(
            f"A documents table {table.name} was expected with its keyword tables, but is not there.",
            hint="Call create_table(), which also completes a table that a plain store made, or run `synapse.py models add`.",
            code=SchemaError.code,
        )
    if isinstance(exc.__cause__, UndefinedFunction) and "synapse_" in exc.message:
        return StoreError(
            "The functions that searches use were expected in this database, but are not there.",
            hint="Run `python synapse.py database upgrade`, or call create_table().",
            code=SchemaError.code,
        )
    if _NO_EXTENSION.search(exc.message):
        return StoreError(
            "The extension vector was expected in this database, but is not there.",
            hint="Install pgvector on the server; then CREATE EXTENSION vector, or create_table() with create_extension.",
            code=ExtensionMissingError.code,
        )
    if match := _DIMENSIONS.search(exc.message):
        found = next(number for number in match.groups() if number and int(number) != table.dimension)
        return StoreError(
            f"Table {table.name} holds {table.vector_type}({found}), but the store gives it {table.dimension}.",
            hint="Set embedding_dimension and the embedding model to those of the table.",
            code=SchemaError.code,
        )
    return StoreError(exc.message, hint=exc.hint, code=exc.code)
