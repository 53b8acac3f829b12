"""
Uploaded files, written to disk as they come.

Starlette's own parser keeps them in the system's temporary folder, whole, before anybody looks at their size.
"""

from __future__ import annotations

import re
import unicodedata
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from components.file_types import SUFFIXES, file_type
from serving.front.refusals import Refusal

LONGEST_NAME = 200
"""Bytes; file systems take 255, and a suffix for what is unfinished wants room, too."""

MOST_FILES = 100
_SIDECAR = ".meta.json"  # a file of that name would be read as the metadata of another
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"|?*]')


class UploadParser:
    """
    Writes the files of one multipart body into a folder. Blocks, and therefore belongs into a thread.

    :param content_type: Of the request, with its boundary.
    :param folder: An empty folder; the files are named by their numbers.
    :param max_file_bytes: Larger files end it.
    :raises Refusal: If the request is not multipart.
    """

    def __init__(self, content_type: str, folder: Path, *, max_file_bytes: int) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise Refusal(
                415, "Files were expected as multipart/form-data.", hint="curl -F files=@handbook.pdf does so."
            )
        self.names: list[str] = []
        self._folder = folder
        self._limit = max_file_bytes
        self._file: BinaryIO | None = None
        self._size = 0
        self._ended = False
        self._field, self._value = b"", b""
        self._headers: dict[bytes, bytes] = {}
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": lambda data, start, end: self._add("_field", data[start:end]),
                    "on_header_value": lambda data, start, end: self._add("_value", data[start:end]),
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._open_file,
                    "on_part_data": self._write,
                    "on_part_end": self.close,
                    "on_end": self._end,
                },
            )
        except FormParserError:
            raise _malformed() from None

    def feed(self, data: bytes) -> None:
        """
        Take the next bytes of the body.

        :raises Refusal: If a file is too large, or of a kind that is not indexed, or the body is malformed.
        :raises OSError: If they cannot be written.
        """
        try:
            self._parser.write(data)
        except FormParserError:
            raise _malformed() from None

    def finish(self) -> list[str]:
        """
        The names of the files, in the order of their numbers.

        :raises Refusal: If the body broke off, or has no file.
        """
        if not self._ended:
            raise _malformed()
        if not self.names:
            raise Refusal(400, "At least one file was expected, but there is none.", code="invalid_input")
        return self.names

    def close(self) -> None:
        """Close the file that is being written, if any."""
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    def _begin_part(self) -> None:
        self._headers, self._field, self._value, self._size = {}, b"", b"", 0

    def _add(self, name: str, data: bytes) -> None:
        setattr(self, name, getattr(self, name) + data)

    def _end_header(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field, self._value = b"", b""

    def _open_file(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if b"filename" not in options:
            raise Refusal(400, "Only files were expected, but a part has no file name.", code="invalid_input")
        name = safe_name(options[b"filename"].decode("utf-8", "replace"))
        if name in self.names:
            raise Refusal(400, f"Files with different names were expected, but two are named {name!r}.")
        if len(self.names) >= MOST_FILES:
            raise Refusal(413, f"At most {MOST_FILES} files were expected at once.")
        self._file = (self._folder / str(len(self.names))).open("xb")
        self.names.append(name)

    def _write(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._size > self._limit:
            raise Refusal(
                413,
                f"Files of at most {self._limit:,} bytes were expected, but {self.names[-1]!r} has more.",
                hint="SYNAPSE_MAX_FILE_BYTES sets the limit.",
            )
        if self._file is not None:
            self._file.write(data[start:end])

    def _end(self) -> None:
        self._ended = True


def safe_name(given: str) -> str:
    """
    A file's name without folders, and without what a file system or a terminal would take amiss.

    :raises Refusal: If nothing is left of it, it is too long, or it is of a kind that is not indexed.
    """
    name = unicodedata.normalize("NFC", given).replace("\\", "/").rsplit("/", 1)[-1]
    name = "".join(char if char.isprintable() else "_" for char in _UNSAFE.sub("_", name)).strip().lstrip(".")
    with suppress(UnicodeEncodeError):
        if 0 < len(name.encode()) <= LONGEST_NAME:
            if file_type(name) is None or name.lower().endswith(_SIDECAR):
                kinds = " ".join(sorted(SUFFIXES))
                raise Refusal(415, f"A file of a kind that is indexed was expected, but {name!r} is none.", hint=kinds)
            return name
    raise Refusal(400, f"A file name of 1 to {LONGEST_NAME} bytes was expected, but is {given[:40]!r}.")


def _malformed() -> Refusal:
    return Refusal(400, "The body was expected as multipart/form-data, but it is malformed or breaks off.")
