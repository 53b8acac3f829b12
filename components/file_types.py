"""
Which files are indexed, and as what. Imports nothing, so that a sync can list files without loading a converter.

A suffix gives a file type (the suffix without its dot, kept in each chunk's `file_type`), the converter that reads it,
and its MIME type.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

_OFFICE = "application/vnd.openxmlformats-officedocument."

_CONVERTERS: dict[str, dict[str, str]] = {
    "markdown": {"md": "text/markdown", "markdown": "text/markdown"},
    "text": {"txt": "text/plain", "text": "text/plain", "rst": "text/x-rst", "log": "text/plain"},
    "html": {"html": "text/html", "htm": "text/html", "xhtml": "application/xhtml+xml"},
    "pdf": {"pdf": "application/pdf"},
    "docx": {"docx": _OFFICE + "wordprocessingml.document"},
    "pptx": {"pptx": _OFFICE + "presentationml.presentation"},
    "xlsx": {"xlsx": _OFFICE + "spreadsheetml.sheet"},
    "csv": {"csv": "text/csv", "tsv": "text/tab-separated-values"},
    "json": {"json": "application/json", "jsonl": "application/jsonl", "ndjson": "application/jsonl"},
    "code": {
        "py": "text/x-python",
        "js": "text/javascript",
        "ts": "text/x-typescript",
        "tsx": "text/x-typescript",
        "jsx": "text/javascript",
        "java": "text/x-java",
        "kt": "text/x-kotlin",
        "scala": "text/x-scala",
        "c": "text/x-c",
        "h": "text/x-c",
        "cpp": "text/x-c++",
        "hpp": "text/x-c++",
        "cs": "text/x-csharp",
        "go": "text/x-go",
        "rs": "text/x-rust",
        "rb": "text/x-ruby",
        "php": "text/x-php",
        "swift": "text/x-swift",
        "r": "text/x-r",
        "lua": "text/x-lua",
        "sh": "text/x-shellscript",
        "sql": "application/sql",
        "css": "text/css",
        "yaml": "application/yaml",
        "yml": "application/yaml",
        "toml": "application/toml",
        "ini": "text/plain",
        "xml": "application/xml",
    },
}


@dataclass(frozen=True, slots=True)
class FileType:
    """
    What a suffix means.

    :param name: The suffix without its dot, lower case.
    :param converter: Name of the converter that reads it, which is also the router's output.
    :param mime_type: Its MIME type.
    """

    name: str
    converter: str
    mime_type: str


FILE_TYPES = {
    f".{name}": FileType(name, converter, mime_type)
    for converter, kinds in _CONVERTERS.items()
    for name, mime_type in kinds.items()
}
"""Suffix, lower case with its dot, to file type."""

SUFFIXES = frozenset(FILE_TYPES)
CONVERTERS = tuple(_CONVERTERS)


def file_type(path: str) -> FileType | None:
    """The type of a file, from the suffix of its name; `None` if it is not one that can be indexed."""
    return FILE_TYPES.get(os.path.splitext(path)[1].lower())


def title_from_name(path: str) -> str:
    """The title of a file that does not tell one: its name without the suffix, underlines as spaces."""
    stem = os.path.splitext(os.path.basename(path))[0]
    return re.sub(r"[_\s]+", " ", stem).strip() or stem
