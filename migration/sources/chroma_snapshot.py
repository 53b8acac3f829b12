"""Chroma's SQLite file, opened so that nothing in its folder changes."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import quote

from database.errors import InvalidInputError
from migration.sources.files import CHUNK, files_below, open_regular, read_whole

DATABASE = "chroma.sqlite3"
LOGS = (f"{DATABASE}-wal", f"{DATABASE}-journal")
"""What SQLite has still to write into the database, or to take back from it."""

SEGMENT_FILES = frozenset({"header.bin", "data_level0.bin", "length.bin", "link_lists.bin", "index_metadata.pickle"})

RECOVER = "Restore it from a backup, or recover it with `sqlite3 chroma.sqlite3 .recover`."
_STOP = "Stop Chroma, or copy the folder while it is stopped, then start again."


class Snapshot:
    """
    The database of a folder as it is now.

    Without a log beside it, the file is opened as immutable: SQLite takes no lock and writes no shared memory. With one, copies of
    both are opened in a temporary folder, where SQLite can apply it.

    :param folder: Where `chroma.sqlite3` is.
    :raises InvalidInputError: If it is no SQLite database, is being written, or cannot be copied for want of space.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if read_whole(folder / DATABASE, at_most=16) != b"SQLite format 3\0":
            raise InvalidInputError(f"{folder / DATABASE} is no SQLite database.")
        self._state = self.state()
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        logs = [name for name in LOGS if os.path.lexists(folder / name)]
        database = self._copied([DATABASE, *logs]) if logs else folder / DATABASE
        mode = "rw" if logs else "ro&immutable=1"
        with self.reading():
            # One connection may be used by several threads, one after the other.
            self.connection = sqlite3.connect(
                f"file:{quote(os.fsencode(database))}?mode={mode}",
                uri=True,
                check_same_thread=False,
                isolation_level=None,
            )
            # Bytes that are no UTF-8 come as lone surrogates, which the conversion reports with their record.
            self.connection.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
            for setting in ("trusted_schema = OFF", "temp_store = FILE", "cache_size = -16000", "mmap_size = 0"):
                self.connection.execute(f"PRAGMA {setting}")

    def files(self) -> list[str]:
        """Chroma's own files in the folder, which may be a project's; relative to it."""
        files = [name for name in (DATABASE, *LOGS) if os.path.lexists(self.folder / name)]
        for name in os.listdir(self.folder):
            if len(name) == 36 and os.path.isdir(self.folder / name):
                files += [f"{name}/{each}" for each in files_below(self.folder / name) if each in SEGMENT_FILES]
        return files

    def state(self) -> dict[str, tuple[int, int]]:
        """Size and time of each file."""
        states = {}
        try:
            for name in self.files():
                with suppress(FileNotFoundError):  # a log comes and goes
                    found = os.stat(self.folder / name)
                    states[name] = (found.st_size, found.st_mtime_ns)
        except OSError as exc:
            raise self._explained(exc) from exc
        return states

    def check_unchanged(self) -> None:
        """
        That nobody has written since this was opened.

        :raises InvalidInputError: If a file has another size or time, has come or gone.
        """
        now = self.state()
        changed = sorted(name for name in now.keys() | self._state.keys() if now.get(name) != self._state.get(name))
        if changed:
            raise InvalidInputError(f"{self.folder / changed[0]} has changed while it was read.", hint=_STOP)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """What SQLite and the system say about the files, as an error that names them; or that somebody is writing."""
        try:
            yield
        except (sqlite3.Error, UnicodeError, OSError, InvalidInputError) as exc:
            self.check_unchanged()
            if isinstance(exc, InvalidInputError):
                raise
            raise self._explained(exc) from exc

    def _explained(self, exc: Exception) -> InvalidInputError:
        if isinstance(exc, OSError):
            return InvalidInputError(f"{exc.filename or self.folder} cannot be read: {exc.strerror}.")
        if getattr(exc, "sqlite_errorname", "") == "SQLITE_FULL":  # the temporary tables: the database is not written
            return InvalidInputError(
                "SQLite has no space for its temporary tables.", hint="Set SQLITE_TMPDIR to a folder with more space."
            )
        return InvalidInputError(f"{self.folder / DATABASE} cannot be read: {exc}.", hint=RECOVER)

    def close(self) -> None:
        """Close the database, and remove the copy."""
        self.connection.close()
        if self._copy is not None:
            self._copy.cleanup()

    def _copied(self, names: list[str]) -> Path:
        self._copy = tempfile.TemporaryDirectory(prefix="synapse-")
        target = Path(self._copy.name)
        size, free = sum(self._state.get(name, (0, 0))[0] for name in names), shutil.disk_usage(target).free
        if size > free:
            raise InvalidInputError(
                f"SQLite's log has to be applied to a copy of {DATABASE}: {size:,} bytes are needed, "
                f"and {target.parent} has {free:,}.",
                hint="Set TMPDIR to a folder with more space.",
            )
        for name in names:
            with self.reading(), open_regular(self.folder / name) as source, (target / name).open("wb") as copy:
                shutil.copyfileobj(source, copy, CHUNK)
        self.check_unchanged()
        return target / DATABASE
