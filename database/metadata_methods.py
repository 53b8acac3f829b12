"""The document store's methods about metadata."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from database import metadata_fields, metadata_queries
from database.document_queries import DocumentsTable, Query


class MetadataMethods:
    """What the store, which runs the queries, tells about its documents' metadata."""

    _table: DocumentsTable
    _read: Callable[[Query], list[dict[str, Any]]]
    _read_async: Callable[[Query], Awaitable[list[dict[str, Any]]]]

    def count_unique_metadata_by_filter(self, filters: dict[str, Any], metadata_fields: list[str]) -> dict[str, int]:
        """
        How many different values each field has in the documents that pass.

        :param filters: In Haystack's syntax.
        :param metadata_fields: With or without `meta.`.
        :returns: Number by field, without `meta.`.
        """
        query = metadata_queries.unique_counts(self._table.identifier, metadata_fields, filters=filters)
        return metadata_queries.counts(self._read(query), metadata_fields)

    async def count_unique_metadata_by_filter_async(
        self, filters: dict[str, Any], metadata_fields: list[str]
    ) -> dict[str, int]:
        """`count_unique_metadata_by_filter`, for asyncio."""
        query = metadata_queries.unique_counts(self._table.identifier, metadata_fields, filters=filters)
        return metadata_queries.counts(await self._read_async(query), metadata_fields)

    def get_metadata_fields_info(self) -> dict[str, dict[str, str]]:
        """The metadata's fields: `{field: {"type": "integer" | "real" | "boolean" | "text"}}`; mixed ones are text."""
        return metadata_queries.field_types(self._read(metadata_queries.fields_info(self._table.identifier)))

    async def get_metadata_fields_info_async(self) -> dict[str, dict[str, str]]:
        """`get_metadata_fields_info`, for asyncio."""
        query = metadata_queries.fields_info(self._table.identifier)
        return metadata_queries.field_types(await self._read_async(query))

    def sample_metadata_fields(self) -> dict[str, set[str]]:
        """
        Fields with the JSON types of their values, those in mappings too, from a sample of the table: milliseconds.

        :returns: Types by name, as `database.field_names` writes it; rare fields may be missing.
        """
        return metadata_fields.sampled(self._read(metadata_fields.sample(self._table.identifier)))

    def has_metadata_field(self, metadata_field: str) -> bool:
        """Whether any document has a field; reads the table until one is found."""
        return bool(self._read(metadata_fields.occurs(self._table.identifier, metadata_field))[0]["occurs"])

    def get_metadata_field_min_max(self, metadata_field: str) -> dict[str, Any]:
        """
        The smallest and the largest of a field's numbers; of its texts where it has no numbers, else of what it has.

        :param metadata_field: With or without `meta.`.
        :returns: `{"min", "max"}`; `None` where no document has the field.
        """
        return self._read(metadata_queries.smallest_and_largest(self._table.identifier, metadata_field))[0]

    async def get_metadata_field_min_max_async(self, metadata_field: str) -> dict[str, Any]:
        """`get_metadata_field_min_max`, for asyncio."""
        query = metadata_queries.smallest_and_largest(self._table.identifier, metadata_field)
        return (await self._read_async(query))[0]

    def get_metadata_field_unique_values(
        self,
        metadata_field: str,
        search_term: str | None = None,
        from_: int = 0,
        size: int = 10,
        filters: dict[str, Any] | None = None,
    ) -> tuple[list[Any], int]:
        """
        One page of a field's different values: numbers, then texts by code point, then the rest.

        :param metadata_field: With or without `meta.`.
        :param search_term: Only values that contain it, whatever the case.
        :param from_: How many values to leave out.
        :param size: How many to return.
        :param filters: Only values of documents that pass.
        :returns: The values, and how many there are in all. 1, 1.0, "1" and true are four.
        """
        query = metadata_queries.unique_values(
            self._table.identifier, metadata_field, search_term=search_term, from_=from_, size=size, filters=filters
        )
        row = self._read(query)[0]
        return row["values"], row["total"]

    async def get_metadata_field_unique_values_async(
        self,
        metadata_field: str,
        search_term: str | None = None,
        from_: int = 0,
        size: int = 10,
        filters: dict[str, Any] | None = None,
    ) -> tuple[list[Any], int]:
        """`get_metadata_field_unique_values`, for asyncio."""
        query = metadata_queries.unique_values(
            self._table.identifier, metadata_field, search_term=search_term, from_=from_, size=size, filters=filters
        )
        row = (await self._read_async(query))[0]
        return row["values"], row["total"]
