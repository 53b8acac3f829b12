"""
A source of one's own for the migration engine: a file of JSON lines with vectors.

    python -m examples.migrate_jsonl [FILE]

A line is `{"id": …, "text": …, "vector": […]}`; whatever else it holds is metadata.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from commands.database import owner_database
from config import Settings
from migration.conversion import checked_policies
from migration.engine import Migration, Options
from migration.receipt_page import page
from migration.source import Loss, Part, Position, Record
from migration.sources.files import fingerprint


class JsonLines:
    """The file as one part. A position is the byte behind a line, so that going on is one seek."""

    kind = "JSON lines"
    version: str | None = None

    def __init__(self, path: Path) -> None:
        self.path, self.location = path, str(path.resolve())

    def parts(self) -> list[Part]:
        """Reads the file once: how much there is must be known, and that no id comes twice."""
        ids, count, dimension, name = set(), 0, None, self.path.stem
        for count, record in enumerate(self.records(), start=1):  # noqa: B007
            ids.add(record.id)
            dimension = dimension or (None if record.embedding is None else len(record.embedding))
        refusal = None if len(ids) == count else f"It repeats {count - len(ids)} ids; leave one line for each."
        return [Part(id=name, name=name, count=count, dimension=dimension, refusal=refusal)]

    def records(self, part: Part | None = None, *, after: Position | None = None) -> Iterator[Record]:
        """The lines in the file's order, one in memory at a time."""
        with self.path.open("rb") as file:
            file.seek(after if isinstance(after, int) else 0)
            while line := file.readline():
                yield _record(line, file.tell())

    def fingerprint(self) -> str:
        """Of the file's bytes."""
        return fingerprint(self.path.parent, [self.path.name])

    def close(self) -> None:
        """Nothing is held open."""


def _record(line: bytes, position: int) -> Record:
    try:
        meta = json.loads(line)
        id_, text, vector = str(meta.pop("id")), meta.pop("text", None), meta.pop("vector", None)
        return Record(id_, text, meta, None if vector is None else np.array(vector, dtype=np.float32), position)
    except (ValueError, TypeError, KeyError, AttributeError):  # not left out: the user decides on it
        return Record(f"byte {position}", None, {}, None, position, (Loss("unreadable", "embedding", line),))


def main(path: Path | None = None) -> None:
    """Migrate the file, leave out what cannot be read, and print the receipt."""
    path, settings = path or Path(__file__).with_name("tickets.jsonl"), Settings.from_env()
    options = Options(policies=checked_policies({"unreadable": "reject"}))
    receipts = settings.home / "receipts" / path.stem
    print(page(Migration(JsonLines(path), owner_database(settings), options, receipts=receipts).run()))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
