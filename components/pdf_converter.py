"""PDF, page by page, with its bookmarks as headings."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import islice
from typing import Any

from haystack import Document, component
from haystack.dataclasses import ByteStream

from components.converted_text import ConvertedText
from database.errors import InvalidInputError

# A word cut at a line's end: PDFium writes U+FFFE or U+0002 for such a hyphen, or leaves it as it is.
_CUT_WORD = re.compile(r"(?<=[^\W\d_])[-\xad\x02\ufffe]\n(?=[a-zà-öø-ÿ])|[\x02\ufffe]\n?")
_NO_TITLE = re.compile(r"(microsoft \w+ - |untitled|unnamed|slide ?\d).*|.*\.(docx?|pdf|tex|dvi|indd|rtf|odt)", re.I)
_MAX_BOOKMARKS = 5_000
_REPEATED = 0.6
"""Share of the pages on which a first or last line stands, if it is a header or footer."""


@component
class PDFConverter:
    """
    Converts PDFs with PDFium: pages are known, bookmarks are headings, running headers and footers are left out.

    A PDF without a text layer, such as a scan, is refused: it needs character recognition first.
    """

    @component.output_types(documents=list[Document])
    def run(self, sources: list[ByteStream]) -> dict[str, Any]:
        """
        Convert.

        :param sources: From `SourceRouter`.
        :raises InvalidInputError: If one is damaged, encrypted, or has no text layer.
        """
        return {"documents": [_converted(stream) for stream in sources]}


def _converted(stream: ByteStream) -> Document:
    import pypdfium2

    if b"%PDF-" not in stream.data[:1024]:
        raise InvalidInputError("it is not a PDF: it does not begin with %PDF")
    try:
        with pypdfium2.PdfDocument(stream.data) as pdf:
            pages = [_page_text(pdf, number) for number in range(len(pdf))]
            bookmarks = _bookmarks(pdf)
            about = pdf.get_metadata_dict(skip_empty=True)
    except pypdfium2.PdfiumError as exc:
        problem = str(exc)
        if "password" in problem.lower() or "security" in problem.lower():
            raise InvalidInputError("it is encrypted with a password") from exc
        raise InvalidInputError(f"it is damaged: {problem}") from exc
    converted = ConvertedText()
    path: list[tuple[int, str]] = []
    for number, page in enumerate(without_running_lines(pages), 1):
        for heading, part in _sections(page, bookmarks.get(number, []), path):
            converted.add(part, heading=heading, page=number)
    empty = f"it has no text on its {len(pages)} pages: it looks scanned, and needs character recognition (OCR) first"
    meta = {key.lower(): about[key] for key in ("Author", "Subject", "Keywords") if about.get(key)}
    title = about.get("Title", "")
    title = "" if _NO_TITLE.fullmatch(title.strip()) else title
    return converted.document(stream, title=title, meta=meta, origin="its properties", empty=empty)


def _page_text(pdf: Any, number: int) -> str:
    page = pdf[number]
    textpage = page.get_textpage()
    try:
        text: str = textpage.get_text_bounded()
    finally:
        textpage.close()
        page.close()
    return _CUT_WORD.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def without_running_lines(pages: list[str]) -> list[str]:
    """
    Leave out first and last lines that most pages share but for their numbers.

    :param pages: Texts of at least four pages; fewer are left as they are.
    """
    if len(pages) < 4:
        return pages
    split = [page.strip("\n").split("\n") for page in pages]
    for edge in (0, -1):
        seen = Counter(_normalised(lines[edge]) for lines in split if lines)
        running = {
            line for line, count in seen.items() if line and count >= max(3, _REPEATED * len(pages)) and len(line) < 120
        }
        for lines in split:
            if len(lines) > 1 and _normalised(lines[edge]) in running:
                del lines[edge]
    return ["\n".join(lines) for lines in split]


def _normalised(line: str) -> str:
    return re.sub(r"\d+|\s+", "#", line.strip())


def _bookmarks(pdf: Any) -> dict[int, list[tuple[int, str]]]:
    """Level and title of the bookmarks of each page, in order."""
    found: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for bookmark in islice(pdf.get_toc(max_depth=6), _MAX_BOOKMARKS):
        target = bookmark.get_dest()
        index, title = target.get_index() if target else None, " ".join(bookmark.get_title().split())
        if index is not None and title:
            found[index + 1].append((bookmark.level, title[:300]))
    return found


def _sections(
    page: str, bookmarks: list[tuple[int, str]], path: list[tuple[int, str]]
) -> Iterator[tuple[list[str], str]]:
    """Part a page where the titles of its bookmarks stand; `path` is carried from page to page."""
    position = 0
    for level, title in bookmarks:
        words = r"\s+".join(map(re.escape, title.split()))
        found = re.compile(rf"^[\d.\s]{{0,20}}{words}", re.MULTILINE | re.IGNORECASE).search(page, position)
        if found:
            yield [heading for _, heading in path], page[position : found.start()]
            position = found.start()
        path[:] = [*(above for above in path if above[0] < level), (level, title)]
    yield [heading for _, heading in path], page[position:]
