"""Tables as text: CSV and TSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from haystack import Document, component
from haystack.dataclasses import ByteStream

from components.converted_text import ConvertedText
from components.decoding import decoded
from components.table_rows import row_lines
from database.errors import InvalidInputError

_DELIMITERS = ",;\t|"
_LONGEST_FIELD = 1_000_000


@component
class CSVConverter:
    """Converts CSV and TSV: each row becomes a line in which every value stands after its column's name."""

    @component.output_types(documents=list[Document])
    def run(self, sources: list[ByteStream]) -> dict[str, Any]:
        """
        Convert.

        :param sources: From `SourceRouter`.
        :raises InvalidInputError: If one is not text, or not a table.
        """
        return {"documents": [_converted(stream) for stream in sources]}


def _converted(stream: ByteStream) -> Document:
    text = decoded(stream.data)
    delimiter = "\t" if stream.meta.get("file_type") == "tsv" else _delimiter(text)
    converted = ConvertedText()
    converted.add("\n".join(row_lines(_rows(text, delimiter))), kind="rows")
    return converted.document(stream, empty="it has no values")


def _rows(text: str, delimiter: str) -> Iterator[list[str]]:
    csv.field_size_limit(_LONGEST_FIELD)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        yield from reader
    except csv.Error as exc:
        raise InvalidInputError(f"it is not a table of values: line {reader.line_num:,}: {exc}") from exc


def _delimiter(text: str) -> str:
    """The delimiter that stands equally often in the first lines, else most often."""
    lines = [line for line in text[:20_000].splitlines()[:20] if line.strip()]

    def agreement(delimiter: str) -> tuple[bool, int]:
        counts = [line.count(delimiter) for line in lines]
        return min(counts) > 0 and min(counts) == max(counts), sum(counts)

    return max(_DELIMITERS, key=agreement)
