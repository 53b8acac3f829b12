"""What docx, pptx and xlsx have in common: zip archives of XML, which may be damaged, encrypted or bombs."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from database.errors import InvalidInputError

MAX_UNPACKED = 300 * 1024 * 1024
MAX_RATIO = 200
"""Real documents shrink to a tenth; a thousandth is a bomb."""

MAX_PARTS = 20_000
_ENCRYPTED = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


@contextmanager
def office_file(data: bytes, *, part: str) -> Iterator[io.BytesIO]:
    """
    Look at the archive before a library unpacks it, and give that library's errors a reason.

    :param data: The file's bytes.
    :param part: Folder that this kind of document has, such as `word/`.
    :raises InvalidInputError: If it is damaged, encrypted, something else, or unpacks to too much.
    """
    if data.startswith(_ENCRYPTED):
        raise InvalidInputError("it is encrypted with a password, or has the format of before 2007")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check(archive, len(data), part=part)
        yield io.BytesIO(data)
    except InvalidInputError:
        raise
    except MemoryError:
        raise InvalidInputError("it needs more memory than there is") from None
    except Exception as exc:  # whatever a parser raises on what is damaged
        problem = " ".join(str(exc).split())[:200] or type(exc).__name__
        raise InvalidInputError(f"it is damaged: {problem}") from exc


def _check(archive: zipfile.ZipFile, packed: int, *, part: str) -> None:
    parts = archive.infolist()
    unpacked = sum(entry.file_size for entry in parts)
    if len(parts) > MAX_PARTS or unpacked > MAX_UNPACKED or unpacked > max(packed * MAX_RATIO, 1024 * 1024):
        raise InvalidInputError(f"it would unpack from {packed:,} to {unpacked:,} bytes in {len(parts):,} parts")
    if any(entry.flag_bits & 1 for entry in parts):
        raise InvalidInputError("it is encrypted with a password")
    if not any(entry.filename.startswith(part) for entry in parts):
        raise InvalidInputError(f"it is a zip archive, but not a document of its type: it has no {part}")


def properties(core: Any) -> dict[str, Any]:
    """What a document's core properties say of it, where they say something."""
    fields: Mapping[str, Any] = {
        "title": core.title,
        "author": getattr(core, "author", None) or getattr(core, "creator", None),
        "subject": core.subject,
        "keywords": core.keywords,
        "category": core.category,
    }
    return {name: value.strip() for name, value in fields.items() if isinstance(value, str) and value.strip()}
