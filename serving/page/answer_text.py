"""
Answers as the page's Markdown.

What a document or a model says may be formatted, but makes no links, no images and no HTML: whoever can write a document
must not decide what a reader's browser fetches, nor where a click leads. Addresses are shown as code, to be copied. The
only links are ours, to sources.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from components.answers import UNSUPPORTED_MARK

NOTHING_FOUND = "Other words may help, or fewer filters."
_EXTRACTIVE = "*These are sentences of your documents, as they stand there.*"
_UNSUPPORTED = "*(not in the sources)*"

_FENCE = re.compile(r"(`{3,}|~{3,})([^`]*)")
_MAYBE_FENCE = re.compile(r"(`{1,2}|~{1,2}|(`{3,}|~{3,})[^\n]*)?")
_UNDECIDED = re.compile(r"[!-~]\S*\Z")
_ADDRESS = re.compile(r"(?:https?://|\bwww\.)[^\s`<>]*[^\s`<>.,;:!?'\"()\[\]*_]", re.IGNORECASE)
_LINKING = re.compile(r"\](?=[(:])|<(?=[A-Za-z][A-Za-z0-9+.-]*:|[^\s<>]*@)|^[\s>*+\-\d.)]*<")
_DIRECTIVE = re.compile(r":(?=[A-Za-z:])")
_MARK = re.compile(r"(?<![\\\w])\[(\d+)\](?!\\?\()")
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")


class SafeText:
    """Makes text that comes in parts safe as it comes; what a later part may change is held back until then."""

    def __init__(self) -> None:
        self._raw = ""
        self._sent = 0

    def add(self, part: str) -> str:
        """
        Take the next part.

        :returns: What can be shown by now and was not returned before.
        """
        self._raw += part.replace("\r", "\n")  # which ends a line in Markdown, too
        return self._shown(self._raw[: _decided(self._raw)])

    def rest(self) -> str:
        """What was held back, as nothing follows."""
        return self._shown(self._raw)

    def _shown(self, raw: str) -> str:
        text = safe_markdown(raw)
        fresh = text[self._sent :]
        self._sent = len(text)
        return fresh


def safe_markdown(text: str) -> str:
    """Text with its formatting, but with nothing in it that a browser would fetch or follow."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return "\n".join(line if code else _safe_line(line) for line, code in _lines(text))


def answer_markdown(
    text: str, citations: Sequence[Mapping[str, Any]], *, message_id: UUID | None, note: str = ""
) -> str:
    """
    A whole answer: its text with marks that open their sources, and the list of these.

    :param text: The answer, with marks `[1]`.
    :param citations: What they refer to, as `Citation.to_dict` has it.
    :param message_id: The stored answer, which the links go through; `None` where it was not stored: then without links.
    :param note: A sentence to put under it.
    """
    places: dict[int, list[int]] = {}
    for place, citation in enumerate(citations, start=1):
        places.setdefault(citation["number"], []).append(place)

    def linked(found: re.Match[str]) -> str:
        own = places.get(int(found[1]))
        if not own or message_id is None:
            return found[0]
        # Marks come in the order of their quotes; the last one serves whatever marks are left.
        return f"[[{found[1]}]]({source_url(message_id, own.pop(0) if len(own) > 1 else own[0])})"

    lines = _lines(safe_markdown(text))
    body = "\n".join(
        line if code else _MARK.sub(linked, line.replace(UNSUPPORTED_MARK, _UNSUPPORTED)) for line, code in lines
    )
    parts = [body, *([note] if note else [])]
    if citations:
        parts.append("\n".join(["**Sources**\n", *_source_lines(citations, message_id)]))
    return "\n\n".join(parts)


def notes(*, supported: bool | None, extractive: bool | None, interrupted: bool = False) -> str:
    """What to say about an answer beside itself."""
    said = []
    if interrupted:
        said.append("*The answer was stopped here.*")
    elif supported is False:
        said.append(NOTHING_FOUND)
    elif extractive:
        said.append(_EXTRACTIVE)
    return "\n\n".join(said)


def source_url(message_id: UUID, place: int) -> str:
    """Where the source of an answer's citation is shown, by its place among the citations, from 1."""
    return f"/sources/{message_id}/{place}"


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return _PUNCTUATION.sub(r"\\\1", " ".join(text.split()))


def short_name(source: str) -> str:
    """A source without its folders."""
    return source.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1] or source


def place_of(citation: Mapping[str, Any]) -> list[str]:
    """Where a quote stands: source, page, heading; what is not known is left out."""
    page, heading = citation.get("page"), citation.get("heading")
    return [
        short_name(citation["source"]),
        *([f"page {page}"] if page else []),
        *([str(heading)] if heading else []),
    ]


def _source_lines(citations: Sequence[Mapping[str, Any]], message_id: UUID | None) -> list[str]:
    lines: dict[tuple[int, str], str] = {}
    for place, citation in enumerate(citations, start=1):
        number, where = citation["number"], " · ".join(map(escaped, place_of(citation)))
        mark = f"\\[{number}\\]" if message_id is None else f"[[{number}]]({source_url(message_id, place)})"
        lines.setdefault((number, where), f"- {mark} {where}")
    return list(lines.values())


def _decided(raw: str) -> int:
    """How much of a text means the same whatever follows."""
    start = raw.rfind("\n") + 1
    if _MAYBE_FENCE.fullmatch(raw, start):
        return start
    found = _UNDECIDED.search(raw, start)
    return found.start() if found else len(raw)


def _safe_line(line: str) -> str:
    line = _LINKING.sub(lambda found: "]\\" if found[0] == "]" else found[0].replace("<", "\\<"), line)
    pieces = re.split(r"(`+)", line)
    for n in range(0, len(pieces), 4):  # what stands within backticks is code already
        # A colon before a letter would make Chainlit's Markdown swallow the word.
        pieces[n] = _ADDRESS.sub(r"`\g<0>`", _DIRECTIVE.sub(r"\\:", pieces[n]))
    return "".join(pieces)


def _lines(text: str) -> Iterator[tuple[str, bool]]:
    """
    The lines of a text, and whether each is part of a code block, where nothing is escaped.

    Only blocks that begin and end at the margin count, and none any more after a fence that stands elsewhere: in a list or
    a quotation it depends on too much whether it opens or closes something.
    """
    fence, confused = None, False
    for line in text.split("\n"):
        if "```" not in line and "~~~" not in line:
            yield line, fence is not None and not confused
            continue
        code, found = fence is not None and not confused, _FENCE.fullmatch(line)
        if fence is None and found and not confused:
            fence, code = found[1], True
        elif fence is not None and found and found[1].startswith(fence) and not found[2].strip():
            fence = None
        else:
            confused = True
        yield line, code
