"""The rejects file: whatever was changed or left out, as it was. JSON lines."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np


class RejectsFile:
    """
    A rejects file in the making: under another name until it is whole.

    Each line is `{part, id, kind, action, field, original}`; `action` is `changed`, `rejected` or `stopped`. What JSON
    cannot hold is written as `{"float": "nan"}`, `{"bytes": base64}`, `{"float32": base64, little-endian}`; lone surrogates
    and U+0000 as JSON's own escapes, so that the file is plain ASCII.

    :param path: Where it will be; an older one is replaced when this one is whole. `None` only counts.
    """

    def __init__(self, path: Path | None) -> None:
        self.path, self.lines = path, 0
        self._hash = hashlib.sha256()
        self._partial = path.with_name(path.name + ".partial") if path else Path(os.devnull)
        self._file = self._partial.open("wb")

    def __enter__(self) -> RejectsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.flush()
        if self.path is None:
            self._file.close()
            return
        os.fsync(self._file.fileno())
        self._file.close()
        if kind is None:
            os.replace(self._partial, self.path)
        else:
            self._partial.unlink()

    def write(self, *, part: str, id: Any, kind: str, action: str, field: str, original: Any) -> None:
        """Add a line."""
        entry = {"part": part, "id": id, "kind": kind, "action": action, "field": field, "original": original}
        line = json.dumps(plain(entry), allow_nan=False).encode("ascii") + b"\n"
        self._file.write(line)
        self._hash.update(line)
        self.lines += 1

    def summary(self) -> dict[str, Any]:
        """`{path, lines, sha256}`, for the receipt."""
        return {"path": self.path.name if self.path else None, "lines": self.lines, "sha256": self._hash.hexdigest()}


def plain(value: Any) -> Any:
    """A value as JSON can hold it, without loss."""
    if isinstance(value, np.ndarray):
        return {"float32": base64.b64encode(value.astype("<f4").tobytes()).decode()}
    if isinstance(value, bytes | bytearray | memoryview):
        return {"bytes": base64.b64encode(bytes(value)).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)
