"""Reads sources and sends each to the converter of its type."""

from __future__ import annotations

import hashlib
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from haystack import component
from haystack.components.converters.utils import normalize_metadata
from haystack.dataclasses import ByteStream

from components.file_types import CONVERTERS, FILE_TYPES, file_type
from components.source_meta import user_meta
from database.errors import InvalidInputError


class _SourceStream(ByteStream):  # type: ignore[misc]
    """A file's bytes, left out where Haystack notes the inputs of a component that failed: as JSON they are immense."""

    def to_dict(self) -> dict[str, Any]:
        """All but the bytes."""
        return {"data": [], "meta": self.meta, "mime_type": self.mime_type}


@component
class SourceRouter:
    """
    Reads sources and sends each to the converter of its type, which its suffix tells.

    Haystack's `FileTypeRouter` passes over what it cannot read or does not know; here that is an error with its reason.

    :param max_bytes: Larger files are refused unread.
    """

    def __init__(self, *, max_bytes: int = 100 * 1024 * 1024) -> None:
        self.max_bytes = max_bytes
        component.set_output_types(self, **dict.fromkeys(CONVERTERS, list[ByteStream]))

    def run(
        self,
        sources: list[str | Path | ByteStream],
        meta: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> dict[str, list[ByteStream]]:
        """
        Read and route.

        :param sources: Paths, or byte streams whose `meta` names them as `source`, `file_path` or `file_name`.
        :param meta: One for all, or one for each.
        :returns: Byte streams by converter, each with what is known of the file so far as its `meta`.
        :raises InvalidInputError: If one cannot be read, is empty, too large, or of an unknown type.
        """
        routed: dict[str, list[ByteStream]] = {}
        for source, given in zip(sources, normalize_metadata(meta, len(sources)), strict=True):
            stream = self._opened(source, given)
            routed.setdefault(FILE_TYPES["." + stream.meta["file_type"]].converter, []).append(stream)
        return routed

    def _opened(self, source: str | Path | ByteStream, given: dict[str, Any]) -> ByteStream:
        if isinstance(source, ByteStream):
            own = dict(source.meta)
            name = str(own.pop("source", None) or own.pop("file_path", None) or own.pop("file_name", None) or "")
            data, file = source.data, {"size": len(source.data), "mtime_ns": 0, "checked_at_ns": 0}
            given = {**own, **given}
        else:
            name = os.path.abspath(source)
            data, file = self._read(name)
        kind = file_type(name)
        if kind is None:
            suffix = os.path.splitext(name)[1]
            raise InvalidInputError(f"its type {suffix!r} cannot be indexed" if suffix else "it has no type: no suffix")
        if not data.strip(b" \t\r\n\0\xef\xbb\xbf\xff\xfe"):
            raise InvalidInputError("it is empty")
        canonical = json.dumps(given, sort_keys=True, separators=(",", ":"), default=str)
        known = {
            **user_meta(given, origin="the given metadata"),
            "source": name,
            "file_type": kind.name,
            "content_hash": hashlib.sha256(data).hexdigest(),
            "file": {**file, "meta_hash": hashlib.sha256(canonical.encode("utf-8", "replace")).hexdigest()},
        }
        if file["mtime_ns"]:
            modified = datetime.fromtimestamp(file["mtime_ns"] / 1e9, UTC)
            known["modified"] = modified.isoformat(timespec="seconds")
        return _SourceStream(data=data, meta=known, mime_type=kind.mime_type)

    def _read(self, name: str) -> tuple[bytes, dict[str, int]]:
        try:
            with open(name, "rb") as file:
                status, checked = os.fstat(file.fileno()), time.time_ns()
                if status.st_size > self.max_bytes:
                    raise InvalidInputError(
                        f"it has {status.st_size:,} bytes, more than the {self.max_bytes:,} allowed"
                    )
                data = file.read(self.max_bytes + 1)
        except OSError as exc:
            raise InvalidInputError(f"it cannot be read: {exc.strerror}") from exc
        if len(data) > self.max_bytes:
            raise InvalidInputError(f"it grew beyond the {self.max_bytes:,} bytes allowed")
        return data, {"size": len(data), "mtime_ns": status.st_mtime_ns, "checked_at_ns": checked}
