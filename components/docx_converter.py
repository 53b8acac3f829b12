"""Word documents, by their headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from haystack import Document, component
from haystack.dataclasses import ByteStream

from components.converted_text import ConvertedText
from components.office_files import office_file, properties

_HEADING = re.compile(r"heading ([1-9])", re.IGNORECASE)


@component
class DOCXConverter:
    """
    Converts Word documents: heading styles are known, lists and tables keep their lines, properties become metadata.

    Pages are known where Word has noted them when it last showed the document.
    """

    @component.output_types(documents=list[Document])
    def run(self, sources: list[ByteStream]) -> dict[str, Any]:
        """
        Convert.

        :param sources: From `SourceRouter`.
        :raises InvalidInputError: If one is damaged, encrypted, unpacks to too much, or has no text.
        """
        return {"documents": [_converted(stream) for stream in sources]}


def _converted(stream: ByteStream) -> Document:
    import docx

    with office_file(stream.data, part="word/") as file:
        word = docx.Document(file)
        reading = _Reading(pages=bool(word.element.body.xpath(".//w:lastRenderedPageBreak")))
        for item in word.iter_inner_content():
            reading.add(item)
        reading.end_section()
        meta = properties(word.core_properties)
    return reading.text.document(stream, title=reading.title, meta=meta, origin="its properties")


class _Reading:
    def __init__(self, *, pages: bool) -> None:
        self.text = ConvertedText()
        self.title = ""
        self._page = 1 if pages else None
        self._path: list[tuple[int, str]] = []
        self._lines: list[str] = []
        self._is_list = False

    def add(self, item: Any) -> None:
        if hasattr(item, "rows"):
            self._lines.append("\n".join(_table_lines(item)) + "\n")
            return
        level, text = _level(item), item.text.strip()
        if level is not None and text:
            self.end_section()
            self.title = self.title or text
            if level:
                self._path = [above for above in self._path if above[0] < level] + [(level, text)]
        is_list = _is_list_item(item)
        if self._is_list and not is_list:
            self._lines.append("")
        self._is_list = is_list
        if text:
            self._lines.append(f"- {text}" if is_list else text + "\n")
        self._turn_pages(item)

    def end_section(self) -> None:
        self.text.add("\n".join(self._lines), heading=[heading for _, heading in self._path], page=self._page)
        self._lines = []

    def _turn_pages(self, paragraph: Any) -> None:
        """A paragraph that runs over a page's end belongs to the page that it begins on."""
        if self._page is not None and (breaks := len(paragraph.rendered_page_breaks)):
            self.end_section()
            self._page += breaks


def _level(paragraph: Any) -> int | None:
    """Level of a heading, 0 of the title; `None` for anything else."""
    style = (paragraph.style.name or "") if paragraph.style is not None else ""
    if style.lower() == "title":
        return 0
    found = _HEADING.match(style)
    return int(found[1]) if found else None


def _is_list_item(paragraph: Any) -> bool:
    properties = paragraph._p.pPr
    style = (paragraph.style.name or "") if paragraph.style is not None else ""
    return style.startswith("List") or (properties is not None and properties.numPr is not None)


def _table_lines(table: Any) -> Iterator[str]:
    for row in table.rows:
        cells: list[Any] = []
        for cell in row.cells:
            if not cells or cells[-1]._tc is not cell._tc:  # a cell over several columns comes several times
                cells.append(cell)
        yield " | ".join(" ".join(cell.text.split()) for cell in cells)
