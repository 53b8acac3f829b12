"""Plain text."""

from __future__ import annotations

from typing import Any

from haystack import Document, component
from haystack.dataclasses import ByteStream

from components.converted_text import ConvertedText
from components.decoding import decoded


@component
class TextConverter:
    """Converts plain text; form feeds separate pages."""

    @component.output_types(documents=list[Document])
    def run(self, sources: list[ByteStream]) -> dict[str, Any]:
        """
        Convert.

        :param sources: From `SourceRouter`.
        :raises InvalidInputError: If one is not text.
        """
        return {"documents": [_converted(stream) for stream in sources]}


def _converted(stream: ByteStream) -> Document:
    converted = ConvertedText()
    pages = decoded(stream.data).split("\f")
    for number, page in enumerate(pages, 1):
        converted.add(page, page=number if len(pages) > 1 else None)
    return converted.document(stream)
