"""
Chroma's write-ahead log, the table `embeddings_queue`: what its entries make of a record.

The rules are Chroma's own. ADD ignores an id that is there, UPDATE one that is not, and merges; a None in metadata removes
the key; UPSERT does one or the other. Metadata and vectors are applied apart from each other, each up to an entry of its own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

ADD, UPDATE, UPSERT, DELETE = range(4)
GONE = 0
"""In place of an entry: there is no vector any more. Entries count from 1."""


@dataclass(slots=True)
class Patch:
    """
    What the log adds to the metadata of a record.

    :param values: Set in place of what is there; `None` removes the key.
    :param missing: Set where the key is not there.
    :param replaces: Whether everything that was there before is gone.
    :param gone: Whether the record is deleted.
    :param unreadable: Entries that are no JSON object, as they are.
    """

    values: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, Any] = field(default_factory=dict)
    replaces: bool = False
    gone: bool = False
    unreadable: list[str] = field(default_factory=list)

    def apply(self, meta: dict[str, Any]) -> bool:
        """
        Bring metadata up to date.

        :returns: Whether that changed anything.
        """
        before = dict(meta)
        if self.replaces:
            meta.clear()
        for key, value in self.values.items():
            if value is None:
                meta.pop(key, None)
            else:
                meta[key] = value
        for key, value in self.missing.items():
            meta.setdefault(key, value)
        return repr(before) != repr(meta)

    def dumps(self) -> str:
        """As text; `loads` reads it."""
        return json.dumps([self.values, self.missing, self.replaces, self.unreadable])

    @classmethod
    def loads(cls, text: str) -> Patch:
        """What `dumps` has written."""
        values, missing, replaces, unreadable = json.loads(text)
        return cls(values=values, missing=missing, replaces=replaces, unreadable=unreadable)


@dataclass(frozen=True, slots=True)
class Entry:
    """
    An entry of the log.

    :param seq: Its number.
    :param operation: `ADD`, `UPDATE`, `UPSERT` or `DELETE`.
    :param metadata: JSON, the document in it under `chroma:document`.
    """

    seq: int
    operation: int
    metadata: str | None = None


def parse(text: str | None) -> dict[str, Any]:
    """
    The metadata of an entry.

    :raises ValueError: If it is no JSON object.
    """
    try:
        value = json.loads(text) if text else {}
    except RecursionError as exc:
        raise ValueError("nested too deep") from exc
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


def unstorable(text: str) -> bool:
    """Whether the metadata of an entry has a value that SQLite's columns did not take."""
    try:
        return _unstorable(parse(text))
    except ValueError:
        return False


def _unstorable(value: Any) -> bool:
    if isinstance(value, str):
        return not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, int):
        return not -(2**63) <= value < 2**63
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(_unstorable(key) or _unstorable(item) for key, item in value.items())
    return isinstance(value, list) and any(map(_unstorable, value))


def record_from_log(entries: Iterable[Entry]) -> tuple[int, Patch] | None:
    """
    A record that the tables do not hold, from all that the log says of its id.

    :param entries: In their order.
    :returns: Number of the entry that made it, and its metadata as a patch of nothing; `None` if it is deleted.
    """
    made, patch = 0, Patch()
    for entry in entries:
        if entry.operation == DELETE:
            made, patch = 0, Patch()
        elif _counts(entry.operation, there=bool(made)):
            made = made or entry.seq
            _merge(patch, entry)
    return (made, patch) if made else None


def change_from_log(entries: Iterable[Entry], *, applied: int, row_seq: int) -> Patch:
    """
    What the log adds to a record that the tables hold.

    :param entries: All that it says of the id, in their order.
    :param applied: The last entry that the tables have applied. What older ones say counts only where the tables lack it:
        then they could not hold it.
    :param row_seq: The last entry that changed the record's row.
    """
    patch, there = Patch(), True
    for entry in entries:
        if entry.seq <= applied:
            # an ADD that did not change the row found it there
            if entry.operation == DELETE:
                patch.missing.clear()
            elif entry.operation != ADD or entry.seq <= row_seq:
                _remember(patch, entry)
        elif entry.operation == DELETE:
            patch, there = Patch(replaces=True), False
        elif _counts(entry.operation, there=there):
            there = True
            _merge(patch, entry)
    patch.gone = not there
    return patch


def newest_vector(entries: Iterable[tuple[int, int, bool]], *, there: bool | None) -> int | None:
    """
    Which entry has an id's vector.

    :param entries: Numbers and operations of its entries, in their order, and whether they have a vector.
    :param there: Whether the index holds a vector before them; `None` if nobody knows.
    :returns: Its number, or `GONE`; `None` if the index's vector is still the newest.
    """
    newest = None
    for seq, operation, has_vector in entries:
        if operation == DELETE:
            newest, there = GONE, False
        elif has_vector and (there is None or _counts(operation, there=there)):
            newest, there = seq, True
    return newest


def _counts(operation: int, *, there: bool) -> bool:
    return operation == UPSERT or operation == (UPDATE if there else ADD)


def _merge(patch: Patch, entry: Entry) -> None:
    try:
        values = parse(entry.metadata)
    except ValueError:
        patch.unreadable.append(entry.metadata or "")
        return
    patch.values.update(values)
    for key in values:
        patch.missing.pop(key, None)


def _remember(patch: Patch, entry: Entry) -> None:
    try:
        values = parse(entry.metadata)
    except ValueError:  # the tables hold what was made of it
        return
    for key, value in values.items():
        patch.missing.pop(key, None)
        if value is not None:
            patch.missing[key] = value
