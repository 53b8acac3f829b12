"""
SQLite databases, opened so that nothing is written to them, and every value read as it was stored.

A database beside which a write-ahead log or a journal lies is copied first: reading it in place would replay or ignore it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

from database.errors import GuardError, InvalidInputError

_MAGIC = b"SQLite format 3\0"
_BESIDE = ("-wal", "-journal")
_DATA_FINDING = re.compile(r"(NULL|NUMERIC|TEXT|non-\w+) value in |CHECK constraint failed in ")
"""What a check of the file says about values; these are looked at one by one, later."""

decoded = partial(str, encoding="utf-8", errors="surrogateescape")
"""Texts as they are: bytes that are no UTF-8 become surrogate escapes instead of an error."""


class SqliteFile:
    """
    A SQLite database, read-only.

    :param path: The file.
    :raises InvalidInputError: If it is not there, empty, no SQLite database, encrypted or damaged.
    :raises GuardError: If it is written while it is copied.
    """

    kind = "SQLite database"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.location = str(path)
        _require_database(path)
        self._copy: Path | None = None
        self.known_fingerprint = self.fingerprint()
        opened = path
        if any(_has_content(beside) for beside in _beside(path)):
            opened = self._copied()
        try:
            self.connection = self._opened(opened)
        except BaseException:
            self._remove_copy()
            raise
        self.version = f"SQLite {_writer_version(path)}"

    def fingerprint(self) -> str:
        """SHA-256 over the file and what lies beside it, hexadecimal; computed anew at each call."""
        total = hashlib.sha256()
        for path in (self.path, *_beside(self.path)):
            if _has_content(path):
                with path.open("rb") as file:
                    total.update(hashlib.file_digest(file, "sha256").digest())
        return total.hexdigest()

    def close(self) -> None:
        """Let go of the file, and remove the copy where one was made."""
        self.connection.close()
        self._remove_copy()

    def _opened(self, path: Path) -> sqlite3.Connection:
        copied = path != self.path
        # A copy may be written: SQLite puts into it what its log or journal says.
        mode = "mode=rw" if copied else "mode=ro&immutable=1"
        with _damage_told(self.path):
            connection = sqlite3.connect(
                f"file:{quote(str(path.absolute()))}?{mode}", uri=True, check_same_thread=False, isolation_level=None
            )
            connection.text_factory = decoded
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
            found = [text for (text,) in connection.execute("PRAGMA quick_check(100)") if not _DATA_FINDING.match(text)]
        if found != ["ok"] and found:
            connection.close()
            raise _damaged(self.path, found[0])
        return connection

    def _copied(self) -> Path:
        self._copy = Path(tempfile.mkdtemp(prefix="synapse-sqlite-"))
        opened = self._copy / self.path.name
        for path in (self.path, *_beside(self.path)):
            if _has_content(path):
                shutil.copyfile(path, self._copy / path.name)
        if self.fingerprint() != self.known_fingerprint:
            self._remove_copy()
            raise GuardError(
                f"A database at rest was expected, but {self.path} was written while it was copied.",
                hint="Stop the program that writes it, then run this again.",
            )
        return opened

    def _remove_copy(self) -> None:
        if self._copy is not None:
            shutil.rmtree(self._copy, ignore_errors=True)


def _beside(path: Path) -> Iterator[Path]:
    return (path.with_name(path.name + suffix) for suffix in _BESIDE)


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _require_database(path: Path) -> None:
    if not path.exists():
        raise InvalidInputError(f"A SQLite database was expected at {path}, but there is nothing.")
    if not path.is_file():
        raise InvalidInputError(f"A SQLite database was expected, but {path} is not a file.")
    if not os.access(path, os.R_OK):
        raise InvalidInputError(f"A SQLite database was expected, but {path} may not be read.")
    with path.open("rb") as file:
        head = file.read(len(_MAGIC))
    if not head:
        raise InvalidInputError(f"A SQLite database was expected, but {path} is empty.")
    if head != _MAGIC:
        raise InvalidInputError(
            f"A SQLite database was expected, but {path} does not begin like one: it is another kind of file, or encrypted.",
            hint="Decrypt an encrypted one first, with the program that wrote it.",
        )


def _writer_version(path: Path) -> str:
    """The version of SQLite that wrote the file last, from bytes 96 to 99 of its header."""
    with path.open("rb") as file:
        number = int.from_bytes(file.read(100)[96:100], "big")
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def _damaged(path: Path, found: str) -> InvalidInputError:
    return InvalidInputError(
        f"A whole SQLite database was expected, but {path} is damaged: {found.strip()}.",
        hint="Save what can be read with `sqlite3 FILE .recover`, and migrate that.",
    )


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as exc:
        raise _damaged(path, str(exc)) from exc
