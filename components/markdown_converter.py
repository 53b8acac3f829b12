"""Markdown, by its headings, with its front matter as metadata."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml
from haystack import Document, component
from haystack.dataclasses import ByteStream

from components.converted_text import ConvertedText
from components.decoding import decoded
from database.errors import InvalidInputError

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*))?$")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_NO_HEADING = re.compile(r"\s*([-*+>|#]|\d+[.)]\s|$)")
_MAX_FRONT_MATTER = 64 * 1024


@component
class MarkdownConverter:
    """Converts Markdown: its text stays as it is written, its headings are known, its front matter is metadata."""

    @component.output_types(documents=list[Document])
    def run(self, sources: list[ByteStream]) -> dict[str, Any]:
        """
        Convert.

        :param sources: From `SourceRouter`.
        :raises InvalidInputError: If one is not text, or its front matter is not YAML.
        """
        return {"documents": [_converted(stream) for stream in sources]}


def _converted(stream: ByteStream) -> Document:
    text = decoded(stream.data).replace("\r\n", "\n").replace("\r", "\n")
    meta, body = front_matter(text)
    sections = list(markdown_sections(body))
    tops = [heading[0] for heading, _ in sections if heading and heading[0]]
    title = tops[0] if tops else None
    # A single heading above all others is the title; repeated in each heading it would say nothing.
    is_title = bool(tops) and len(set(tops)) == 1 and meta.get("title", title) in (title, None)
    converted = ConvertedText()
    for heading, part in sections:
        converted.add(part, heading=heading[1:] if is_title else heading)
    return converted.document(stream, title=title, meta=meta, origin="its front matter")


def front_matter(text: str) -> tuple[dict[Any, Any], str]:
    """
    Part a text from the YAML mapping above it.

    :param text: Any text; front matter stands between two lines `---`, the first of which is the first line.
    :returns: The mapping, empty if there is none, and the rest.
    :raises InvalidInputError: If it is not YAML, or tries to blow up.
    """
    text = text.removeprefix("\ufeff")
    if not text.startswith("---\n"):
        return {}, text
    found = re.compile(r"^(?:---|\.\.\.)[ \t]*$", re.MULTILINE).search(text, 4, 4 + _MAX_FRONT_MATTER)
    if found is None:
        return {}, text  # a thematic break
    block = text[4 : found.start()]
    if not re.match(r"\s*[\w\"'#-][^\n]*:", block):
        return {}, text
    try:
        meta = yaml.safe_load(block)
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        problem = " ".join(str(exc).split())[:200]
        raise InvalidInputError(f"its front matter is not YAML: {problem}") from exc
    return (meta, text[found.end() :]) if isinstance(meta, dict) else ({}, text)


def markdown_sections(text: str) -> Iterator[tuple[list[str], str]]:
    """
    Part Markdown at its headings.

    :param text: Markdown without front matter.
    :returns: Headings above each part, outermost first, and the part with its own heading's line.
    """
    lines = text.split("\n")
    path: list[tuple[int, str]] = []
    begin = 0
    for number, level, name in _headings(lines):
        if number > begin:
            yield [heading for _, heading in path], "\n".join(lines[begin:number])
        path = [above for above in path if above[0] < level] + [(level, name)]
        begin = number
    yield [heading for _, heading in path], "\n".join(lines[begin:])


def _headings(lines: list[str]) -> Iterator[tuple[int, int, str]]:
    """Line number, level and text of each heading; what is fenced is code."""
    fence = ""
    for number, line in enumerate(lines):
        if len(line) > 1000:
            continue
        mark = _FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
        elif mark:
            fence = mark[1]
        elif found := _HEADING.match(line):
            name = re.sub(r"(^|[ \t])#+[ \t]*$", "", found[2] or "")
            yield number, len(found[1]), _plain(name)
        elif (
            (found := _UNDERLINE.match(line))
            and number
            and not _NO_HEADING.match(lines[number - 1])
            and (number < 2 or not lines[number - 2].strip())
            and len(lines[number - 1]) <= 200
        ):
            yield number - 1, 1 if found[1][0] == "=" else 2, _plain(lines[number - 1])


def _plain(heading: str) -> str:
    """A heading without links, emphasis and code marks."""
    heading = re.sub(r"!?\[([^\]\[]{0,300})\]\([^)(]{0,500}\)", r"\1", heading)
    return re.sub(r"[*`]+|(?<!\w)_+|_+(?!\w)", "", heading).strip()
