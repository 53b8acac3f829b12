"""Ids of a source that others may be writing to, listed once and kept on disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing


class FrozenIds:
    """Lists of ids on disk: SQLite's own temporary file, which goes with the connection."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect("", check_same_thread=False)
        self._connection.execute("CREATE TABLE ids (part TEXT, id TEXT, PRIMARY KEY (part, id)) WITHOUT ROWID")

    def add(self, part: str, pages: Iterator[list[str]]) -> int | None:
        """Take down a part's ids; returns how many, or `None`, and keeps none, if one came twice."""
        count = 0
        try:
            with self._connection:
                for page in pages:
                    self._connection.executemany("INSERT INTO ids VALUES (?, ?)", ((part, id) for id in page))
                    count += len(page)
        except sqlite3.IntegrityError:
            return None
        return count

    def pages(self, part: str, *, size: int, after: int = 0) -> Iterator[list[str]]:
        """The ids in their order, behind the first so many."""
        query = "SELECT id FROM ids WHERE part = ? ORDER BY id LIMIT -1 OFFSET ?"
        with closing(self._connection.execute(query, (part, after))) as rows:
            while page := rows.fetchmany(size):
                yield [id for (id,) in page]

    def close(self) -> None:
        """Forget them."""
        self._connection.close()
