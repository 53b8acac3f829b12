"""Spreadsheets, sheet by sheet."""

from __future__ import annotations

from typing import Any

from haystack import Document, component
from haystack.dataclasses import ByteStream

from components.converted_text import ConvertedText
from components.office_files import office_file, properties
from components.table_rows import row_lines


@component
class XLSXConverter:
    """Converts spreadsheets: a sheet's name is its heading, a row is a line, formulas are what they last came to."""

    @component.output_types(documents=list[Document])
    def run(self, sources: list[ByteStream]) -> dict[str, Any]:
        """
        Convert.

        :param sources: From `SourceRouter`.
        :raises InvalidInputError: If one is damaged, encrypted, unpacks to too much, or has no values.
        """
        return {"documents": [_converted(stream) for stream in sources]}


def _converted(stream: ByteStream) -> Document:
    import openpyxl

    converted = ConvertedText()
    with office_file(stream.data, part="xl/") as file:
        workbook = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
        for sheet in workbook.worksheets:
            sheet.reset_dimensions()  # what a file says of its size may be a thousand times the truth
            lines = row_lines(sheet.iter_rows(values_only=True))
            converted.add("\n".join(lines), heading=[sheet.title], kind="rows")
        meta = properties(workbook.properties)
        workbook.close()
    if meta.get("author") == "openpyxl":
        del meta["author"]
    return converted.document(stream, meta=meta, origin="its properties", empty="its sheets are empty")
