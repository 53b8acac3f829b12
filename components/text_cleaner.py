"""Cleans converted texts as a whole, before they are split, so that spans point into what is kept."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from haystack import Document, component

from components.converted_text import Sections
from database.errors import InvalidInputError

# Soft hyphens, joiners and byte order marks split words for a search; other controls have no meaning in a text.
_REMOVED = (
    "".join(map(chr, [*range(9), *range(0x0E, 0x20), *range(0x7F, 0x85), *range(0x86, 0xA0)]))
    + "\xad\u200b\u2060\ufeff\ufffe\uffff"
)
_AS_NEWLINE = "\v\f\x85\u2028\u2029"
_AS_SPACE = "\xa0\u2007\u202f"
_TABLE = str.maketrans(dict.fromkeys(_REMOVED) | dict.fromkeys(_AS_NEWLINE, "\n") | dict.fromkeys(_AS_SPACE, " "))
_EMPTY_LINES = re.compile(r"\n{3,}")


@component
class TextCleaner:
    """
    Normalises line ends and spaces and removes characters without meaning; code keeps its layout.
    """

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """
        Clean.

        :param documents: Converted sources, with their sections.
        :returns: The same with cleaned content, and with sections that point into it.
        :raises InvalidInputError: If nothing is left of one.
        """
        return {"documents": [_cleaned(document) for document in documents]}


def _cleaned(document: Document) -> Document:
    text = document.content or ""
    parts, sections, length = [], [], 0
    for section in document.meta["sections"]:
        part = clean_text(text[section["start"] : section["end"]], keep_layout=section["kind"] == "code")
        if section["kind"] != "code":
            part = part.strip("\n") + "\n\n"
        if not part.strip():
            continue
        sections.append({**section, "start": length, "end": length + len(part)})
        parts.append(part)
        length += len(part)
    if not sections:
        raise InvalidInputError("it has no text")
    content = "".join(parts).rstrip()
    sections[-1]["end"] = len(content)
    return replace(document, content=content, meta={**document.meta, "sections": Sections(sections)})


def clean_text(text: str, *, keep_layout: bool = False) -> str:
    """
    Clean a text.

    :param text: Any text.
    :param keep_layout: Whether empty lines stay as they are.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = text.translate(_TABLE)
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    return text if keep_layout else _EMPTY_LINES.sub("\n\n", text)
