"""Presentations, slide by slide."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from haystack import Document, component
from haystack.dataclasses import ByteStream

from components.converted_text import ConvertedText
from components.office_files import office_file, properties

_DEEPEST_GROUP = 20


@component
class PPTXConverter:
    """Converts presentations: a slide's title is its heading, its number its page, its notes follow its text."""

    @component.output_types(documents=list[Document])
    def run(self, sources: list[ByteStream]) -> dict[str, Any]:
        """
        Convert.

        :param sources: From `SourceRouter`.
        :raises InvalidInputError: If one is damaged, encrypted, unpacks to too much, or has no text.
        """
        return {"documents": [_converted(stream) for stream in sources]}


def _converted(stream: ByteStream) -> Document:
    import pptx

    converted, first_title = ConvertedText(), ""
    with office_file(stream.data, part="ppt/") as file:
        presentation = pptx.Presentation(file)
        for number, slide in enumerate(presentation.slides, 1):
            title = _title(slide)
            first_title = first_title or title
            parts = [part for shape in slide.shapes for part in _shape_texts(shape, depth=0)]
            notes = slide.notes_slide.notes_text_frame if slide.has_notes_slide else None
            if notes is not None and notes.text.strip():
                parts.append(f"Notes: {notes.text}")
            converted.add("\n\n".join(parts), heading=[title] if title else [], page=number)
        meta = properties(presentation.core_properties)
    if meta.get("title") == "PowerPoint Presentation":  # what PowerPoint writes where nobody wrote one
        del meta["title"]
    return converted.document(stream, title=first_title, meta=meta, origin="its properties", empty=_empty(presentation))


def _empty(presentation: Any) -> str:
    return f"it has {len(presentation.slides)} slides, but no text: pictures of text cannot be read"


def _title(slide: Any) -> str:
    shape = slide.shapes.title
    return " ".join(shape.text_frame.text.split()) if shape is not None and shape.has_text_frame else ""


def _shape_texts(shape: Any, *, depth: int) -> Iterator[str]:
    if getattr(shape, "shapes", None) is not None and depth < _DEEPEST_GROUP:
        for inner in shape.shapes:
            yield from _shape_texts(inner, depth=depth + 1)
    elif getattr(shape, "has_table", False):
        yield "\n".join(_joined(cell.text for cell in row.cells) for row in shape.table.rows)
    elif shape.has_text_frame and shape.text_frame.text.strip():
        lines = [paragraph.text for paragraph in shape.text_frame.paragraphs if paragraph.text.strip()]
        # The lines of a slide's body are a list, whether they are shown with bullets or not.
        yield "\n".join(lines if len(lines) == 1 else (f"- {line}" for line in lines))


def _joined(cells: Iterable[str]) -> str:
    return " | ".join(" ".join(cell.split()) for cell in cells)
