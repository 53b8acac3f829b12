"""How a converter hands over a source: one text, and the sections that it consists of."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from haystack import Document
from haystack.dataclasses import ByteStream

from components.file_types import title_from_name
from components.source_meta import user_meta
from database.errors import InvalidInputError

Kind = Literal["prose", "rows", "code"]
"""How a section is split and cleaned: at paragraphs and sentences, at lines, or at blank lines with its layout kept."""

MAX_CHARACTERS = 50_000_000
"""Of one converted text: a small file can unpack to any length."""

_SURROGATE = re.compile("[\ud800-\udfff]")


class Sections(list[dict[str, Any]]):
    """
    Sections of a converted text, which nobody changes.

    Haystack copies the inputs of every component in depth; of a hundred thousand sections that takes longer than all
    the rest.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Sections:
        return self


class ConvertedText:
    """
    Collects the sections of a source, in reading order.

    Half surrogate pairs, which JSON can spell but no database can hold, become U+FFFD, the character for what cannot be
    shown.

    The result is a Document whose content is the whole text and whose `meta["sections"]` cover it without gaps, as
    `{"start", "end", "kind"}` with `heading` (a list, outermost first), `page` and `meta` where there are any.
    """

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._sections: list[dict[str, Any]] = []
        self._length = 0

    def add(
        self,
        text: str,
        *,
        heading: Sequence[str] = (),
        page: int | None = None,
        kind: Kind = "prose",
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Append a section. One without text adds nothing, but to code its empty lines.

        :param text: Its text. A section that is not code is followed by an empty line.
        :param heading: The headings above it, outermost first.
        :param page: Its page, from 1.
        :param kind: How it may be split.
        :param meta: What holds for this section alone, from `user_meta`; it is then never joined with another.
        :raises InvalidInputError: If the text becomes too long.
        """
        if not text.strip():
            if kind == "code" and self._sections:
                self._parts.append(text)  # empty lines between definitions belong to what is above them
                self._length += len(text)
                self._sections[-1]["end"] = self._length
            return
        if not text.isascii():
            text = _SURROGATE.sub("\ufffd", text)
        if kind != "code":
            text = text.strip("\n") + "\n\n"
        section: dict[str, Any] = {"start": self._length, "end": self._length + len(text), "kind": kind}
        section |= {"heading": [" ".join(part.split()) for part in heading]} if heading else {}
        section |= {"page": page} if page is not None else {}
        section |= {"meta": dict(meta)} if meta is not None else {}
        self._parts.append(text)
        self._sections.append(section)
        self._length += len(text)
        if self._length > MAX_CHARACTERS:
            raise InvalidInputError(f"its text has more than {MAX_CHARACTERS:,} characters")

    def document(
        self,
        stream: ByteStream,
        *,
        title: str | None = None,
        meta: Mapping[Any, Any] | None = None,
        origin: str = "the file",
        empty: str = "it has no text",
    ) -> Document:
        """
        The converted source.

        :param stream: What was converted; its metadata wins over the file's own.
        :param title: The title that the text itself suggests; one in `meta` is more deliberate.
        :param meta: What the file says of itself.
        :param origin: Where it says so, for messages.
        :param empty: The reason if there is no text.
        :raises InvalidInputError: If there is no text, or `meta` cannot be stored.
        """
        if not self._sections:
            raise InvalidInputError(empty)
        merged = {**user_meta(meta or {}, origin=origin), **stream.meta}
        if not merged.get("title"):
            merged["title"] = " ".join((title or "").split()) or title_from_name(str(stream.meta.get("source", "")))
        merged["mime_type"] = stream.mime_type
        return Document(content="".join(self._parts), meta={**merged, "sections": Sections(self._sections)})
