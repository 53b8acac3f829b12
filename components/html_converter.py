"""HTML, by its headings."""

from __future__ import annotations

import re
from typing import Any

from haystack import Document, component
from haystack.dataclasses import ByteStream
from lxml import etree

from components.converted_text import ConvertedText
from components.decoding import decoded
from components.typed_values import typed
from database.errors import InvalidInputError

_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_UNSEEN = frozenset(
    [
        "script",
        "style",
        "template",
        "noscript",
        "svg",
        "math",
        "iframe",
        "object",
        "canvas",
        "nav",
        "select",
        "textarea",
    ]
)
_BLOCKS = frozenset(
    [
        "p",
        "div",
        "section",
        "article",
        "main",
        "aside",
        "header",
        "footer",
        "address",
        "blockquote",
        "figure",
        "figcaption",
        "form",
        "fieldset",
        "details",
        "summary",
        "ul",
        "ol",
        "dl",
        "dt",
        "dd",
        "pre",
        "table",
        "caption",
        "thead",
        "tbody",
        "tfoot",
        "hr",
        "body",
        "html",
        "title",
    ]
)
_TECHNICAL = re.compile(
    r"viewport|generator|robots|referrer|theme-color|color-scheme|format-detection|(msapplication|apple|twitter|google"
    r"|csrf|fb|og)[-:_].*|handheldfriendly|charset"
)
_ENCODING = re.compile(
    rb"""<meta[^>]{0,200}charset\s*=\s*["']?([\w-]{2,30})|<\?xml[^>]{0,100}encoding=["']([\w-]{2,30})"""
)
_XML_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")
_MAX_META = 100


@component
class HTMLConverter:
    """
    Converts HTML: headings are known, lists and tables keep their lines, `<title>` and `<meta>` become metadata.

    Scripts, styles, menus (`<nav>`) and what a browser does not show are left out. The page is read as a stream of
    tags, not as a tree, so that no nesting is too deep.
    """

    @component.output_types(documents=list[Document])
    def run(self, sources: list[ByteStream]) -> dict[str, Any]:
        """
        Convert.

        :param sources: From `SourceRouter`.
        :raises InvalidInputError: If one is not text, or has none.
        """
        return {"documents": [_converted(stream) for stream in sources]}


def _converted(stream: ByteStream) -> Document:
    page = _Page()
    parser = etree.HTMLParser(target=page, huge_tree=True)
    try:
        parser.feed(_XML_DECLARATION.sub("", _text(stream.data)))
        parser.close()
    except (etree.LxmlError, ValueError) as exc:
        raise InvalidInputError(f"it is damaged: {exc}") from exc
    title = page.title or page.first_heading
    document_meta = {**page.meta, **({"title": page.title} if page.title else {})}
    return page.text.document(stream, title=title, meta=document_meta, origin="its <meta> elements")


def _text(data: bytes) -> str:
    found = _ENCODING.search(data[:4096])
    if found and not data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        name = (found[1] or found[2]).decode("ascii").lower()
        name = "cp1252" if name in ("iso-8859-1", "latin1", "us-ascii", "ascii") else name  # as browsers do
        try:
            return data.decode(name)
        except (LookupError, UnicodeDecodeError):
            pass  # what a page says of itself is often wrong
    return decoded(data)


class _Page:
    """Receives lxml's events."""

    def __init__(self) -> None:
        self.text = ConvertedText()
        self.title = ""
        self.first_heading = ""
        self.meta: dict[str, Any] = {}
        self._parts: list[str] = []
        self._path: list[tuple[int, str]] = []
        self._unseen = self._pre = 0
        self._captured: list[str] | None = None

    def start(self, tag: str, attributes: Any) -> None:
        if tag == "meta":
            self._add_meta(attributes)
        elif tag == "html" and attributes.get("lang"):
            self.meta.setdefault("lang", attributes["lang"])
        if tag in _UNSEEN:
            self._unseen += 1
        elif tag in _HEADINGS:
            self._end_section()
            self._captured = []
        elif tag == "title":
            self._captured = []
        elif tag == "br":
            self._parts.append("\n")
        elif tag == "li":
            self._parts.append("\n- ")
        elif tag == "tr":
            self._parts.append("\n")
        elif tag in _BLOCKS:
            self._parts.append("\n\n")
        self._pre += tag == "pre"

    def end(self, tag: str) -> None:
        if tag in _UNSEEN:
            self._unseen = max(0, self._unseen - 1)
        elif tag in _HEADINGS and self._captured is not None:
            self._begin_section(_HEADINGS[tag], " ".join("".join(self._captured).split()))
        elif tag == "title" and self._captured is not None:
            self.title = self.title or " ".join("".join(self._captured).split())
            self._captured = None
        elif tag in ("td", "th"):
            self._parts.append(" | ")
        elif tag in _BLOCKS:
            self._parts.append("\n\n")
        self._pre = max(0, self._pre - (tag == "pre"))

    def data(self, text: str) -> None:
        if self._unseen:
            return
        if self._captured is not None:
            self._captured.append(text)
        elif self._pre:
            self._parts.append(text)
        else:
            self._parts.append(re.sub(r"\s+", " ", text))

    def comment(self, text: str) -> None:
        """Comments are not shown."""

    def pi(self, target: str, data: str | None = None) -> None:
        """Neither are processing instructions."""

    def close(self) -> None:
        if self._captured:
            self._parts.extend(self._captured)
        self._captured = None
        self._end_section()

    def _begin_section(self, level: int, heading: str) -> None:
        self._captured = None
        if heading:
            self.first_heading = self.first_heading or heading
            self._path = [above for above in self._path if above[0] < level] + [(level, heading)]
            self._parts.append(heading + "\n\n")

    def _end_section(self) -> None:
        lines = (line.strip(" ").removesuffix(" |").removeprefix("| ") for line in "".join(self._parts).split("\n"))
        path = [heading for _, heading in self._path]
        top = path[0] if path else ""
        # A heading that repeats the title says nothing.
        self.text.add(
            re.sub(r"\n{3,}", "\n\n", "\n".join(lines)), heading=path[1:] if top and top == self.title else path
        )
        self._parts = []

    def _add_meta(self, attributes: Any) -> None:
        name = (attributes.get("name") or attributes.get("property") or "").strip().lower()
        content = (attributes.get("content") or "").strip()
        if name and content and not _TECHNICAL.fullmatch(name) and len(self.meta) < _MAX_META:
            self.meta.setdefault(name, typed(content))
