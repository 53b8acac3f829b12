"""Source code, by its definitions."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

from haystack import Document, component
from haystack.dataclasses import ByteStream

from components.converted_text import ConvertedText
from components.decoding import decoded

_MODIFIERS = (
    "export|default|public|private|protected|internal|static|final|abstract|async|unsafe|extern|inline|virtual|override"
    "|open|data|sealed|partial|pub|declare|local"
)
_DEFINITION = re.compile(
    rf"(?:(?:{_MODIFIERS})(?:\([^()]*\))?\s+)*"
    r"(?:func|function|fn|fun|def|class|struct|interface|trait|impl|enum|type|module|namespace|object|record|union"
    r"|create\s+(?:or\s+replace\s+)?(?:unique\s+|materialized\s+|temporary\s+)?"
    r"(?:table|view|function|procedure|index|trigger|type|schema)(?:\s+if\s+not\s+exists)?)"
    r"\s+(?:\([^()]*\)\s*)?[\"`\[]?([\w.:$]+)",
    re.IGNORECASE,
)
_C_FUNCTION = re.compile(r"[A-Za-z_][\w:*&<>,~ ]*[ *&]([\w:~]+)\([^;]*$")
_C_LIKE = frozenset({"c", "h", "cpp", "hpp", "cs", "java"})
_COMMENT = re.compile(r"(#|//|--|/\*|\*|\*/|@|\[|;)")
_LONGEST_LINE = 300

Boundary = tuple[int, list[str]]
"""Line from which on a heading holds, and the heading."""


@component
class CodeConverter:
    """
    Converts source code: its text stays as it is, a section is a function or class with the comment above it.

    Python is parsed; of other languages, and of Python that cannot be parsed, lines that begin a definition at the
    left margin are recognised.
    """

    @component.output_types(documents=list[Document])
    def run(self, sources: list[ByteStream]) -> dict[str, Any]:
        """
        Convert.

        :param sources: From `SourceRouter`.
        :raises InvalidInputError: If one is not text.
        """
        return {"documents": [_converted(stream) for stream in sources]}


def _converted(stream: ByteStream) -> Document:
    text = decoded(stream.data).replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    kind = str(stream.meta.get("file_type"))
    found = _python_boundaries(text, lines) if kind == "py" else None
    boundaries = list(_definitions(lines, kind)) if found is None else found
    converted, begin = ConvertedText(), 0
    heading: list[str] = []
    for number, following in [*boundaries, (len(lines), [])]:
        if number > begin:
            converted.add("\n".join([*lines[begin:number], ""]), heading=heading, kind="code")
            begin = number
        heading = following
    return converted.document(stream)


def _python_boundaries(text: str, lines: list[str]) -> list[Boundary] | None:
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return list(_boundaries(module.body, lines, path=[]))


def _boundaries(body: list[ast.stmt], lines: list[str], *, path: list[str]) -> Iterator[Boundary]:
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
        inner = [*path, node.name]
        yield _with_comment(first, lines), inner
        if isinstance(node, ast.ClassDef):
            yield from _boundaries(node.body, lines, path=inner)
        yield node.end_lineno or node.lineno, path


def _definitions(lines: list[str], kind: str) -> Iterator[Boundary]:
    for number, line in enumerate(lines):
        if not line or line[0].isspace() or len(line) > _LONGEST_LINE:
            continue
        found = _DEFINITION.match(line) or (_C_FUNCTION.match(line) if kind in _C_LIKE else None)
        if found:
            yield _with_comment(number, lines), [found[1]]


def _with_comment(number: int, lines: list[str]) -> int:
    """The line at which the comment directly above a definition begins."""
    while number and _COMMENT.match(lines[number - 1].strip()):
        number -= 1
    return number
