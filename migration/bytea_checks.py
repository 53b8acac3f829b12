"""
What is looked at before bytes become vectors, and proven afterwards: every row read back, and searches beside those in memory.

All of it goes through the table by its key, a page at a time, each page a short query of its own: no snapshot is held, nobody waits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from psycopg.sql import SQL

from database.errors import InvalidInputError
from migration.bytea_table import ByteaTable, escaped
from migration.bytea_values import KINDS, Packing, checksum, unpack, vectors_sent
from migration.progress import OnProgress, Progress
from migration.receipt import Finding

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from psycopg import Connection

PAGE_BYTES = 16 * 2**20
"""Of bytes and vectors that a page holds, about."""

SAMPLE = 2000
_SAMPLED_PAGES_OF = 50_000
"""Rows from which on a sample takes some of the table's pages instead of all."""

OnUnfit = Callable[[list[str], str, bytes], None]
"""Called with key, kind and bytes of each row that does not fit."""


@dataclass(frozen=True, slots=True)
class Page:
    """
    Rows as they stand in the table.

    :param keys: As text.
    :param values: Their bytes; `None` where there are none.
    :param sent: What `vector_send` gives of the new column; `None` where it is empty, or not there yet.
    """

    keys: list[list[str]]
    values: list[bytes | None]
    sent: list[bytes | None]


@dataclass(kw_only=True)
class Inventory:
    """
    What all the bytes are like.

    :param rows: Rows of the table.
    :param with_bytes: Rows that have bytes.
    :param kinds: How many do not fit, by kind.
    :param examples: The first of them: `{key, kind, bytes}`, with their lengths.
    """

    rows: int = 0
    with_bytes: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    examples: dict[str, Finding] = field(default_factory=lambda: {kind: Finding() for kind in KINDS})

    def count(self, key: Sequence[str], kind: str, value: bytes) -> None:
        """Count a row that does not fit."""
        self.kinds[kind] += 1
        self.examples[kind].add({"key": list(key), "bytes": len(value)})


@dataclass(kw_only=True)
class Verified(Inventory):
    """
    The same, and what stands beside the bytes.

    :param equal: Rows whose vector is what the bytes are, bit for bit.
    :param zero: Of these, those of nothing but zeros.
    :param unfilled: Rows that do not fit and therefore have no vector.
    :param missing: Rows that fit and have none.
    :param different: Rows with another vector.
    :param without_bytes: Rows with a vector, but no bytes.
    :param source_sum: Sum of hashes over what the bytes are.
    :param target_sum: The same, over what was read back.
    """

    equal: int = 0
    zero: int = 0
    unfilled: int = 0
    missing: Finding = field(default_factory=Finding)
    different: Finding = field(default_factory=Finding)
    without_bytes: int = 0
    source_sum: int = 0
    target_sum: int = 0


def sample(connection: Connection[Any], table: ByteaTable) -> list[bytes]:
    """Bytes of some rows, of pages taken at random."""
    percent = 100.0 if table.rows < _SAMPLED_PAGES_OF else 100 * SAMPLE * 5 / table.rows
    for name in ("sample", "first_rows"):
        given = {"percent": percent, "count": SAMPLE} if name == "sample" else {"count": SAMPLE}
        if rows := connection.execute(table.compose(name), given, binary=True).fetchall():
            return [row["packed"] for row in rows]
    return []


def found_dimension(values: Sequence[bytes], table: ByteaTable) -> int:
    """
    The dimension that most rows of a sample have.

    :raises InvalidInputError: If it cannot be told.
    """
    lengths = Counter(len(value) for value in values if value and len(value) % 4 == 0)
    if not lengths:
        what = "their lengths are no multiples of 4" if values else "no row has any"
        raise InvalidInputError(
            f"The bytes in {table.part} were expected to be packed float32, but {what}.",
            hint="Name the column that holds the embeddings; for a column that is still empty, give --dimension.",
        )
    return lengths.most_common(1)[0][0] // 4


def pages(connection: Connection[Any], table: ByteaTable, packing: Packing, *, with_target: bool) -> Iterator[Page]:
    """
    The whole table in the order of its key.

    :param with_target: Whether the new column is read, too.
    """
    position, rows = None, min(max(PAGE_BYTES // (2 * packing.size), 50), 2000)
    sent = SQL("{vector_schema}.vector_send(t.{target})" if with_target else "NULL::bytea").format(
        **table.names(escaped)
    )
    while True:
        beyond, key = table.beyond(position)
        statement = table.compose("rows", beyond=beyond, sent=sent)
        found = connection.execute(statement, {"limit": rows, **key}, binary=True).fetchall()
        if not found:
            return
        yield Page(*([row[name] for row in found] for name in ("key", "packed", "sent")))
        position = found[-1]["key"]


def take_inventory(
    connection: Connection[Any], table: ByteaTable, packing: Packing, *, on_unfit: OnUnfit, on_progress: OnProgress
) -> Inventory:
    """Read all bytes and see which do not fit."""
    found = Inventory()
    for page in pages(connection, table, packing, with_target=False):
        _count(found, page, packing, on_unfit)
        on_progress(Progress(step="checking", part=table.part, done=found.rows, total=max(table.rows, found.rows)))
    return found


def verify(
    connection: Connection[Any],
    table: ByteaTable,
    packing: Packing,
    *,
    keep_zero: bool,
    on_unfit: OnUnfit,
    on_vectors: Callable[[list[list[str]], NDArray[np.float32]], None],
    on_progress: OnProgress,
) -> Verified:
    """
    Read every row back and hold its vector against its bytes.

    :param on_vectors: Called with keys and vectors of the rows whose vectors should be found, as the bytes say.
    """
    found = Verified()
    for page in pages(connection, table, packing, with_target=True):
        kinds, places, vectors = _count(found, page, packing, on_unfit, keep_zero=keep_zero)
        found.zero += sum(kinds[place] == "zero_vector" for place in places)
        _compare(found, page, places, vectors)
        expected_empty = set(range(len(page.keys))) - set(places.tolist())
        for place in expected_empty:
            if page.values[place] is None:
                found.without_bytes += page.sent[place] is not None
            elif page.sent[place] is None:
                found.unfilled += 1
            else:
                found.different.add({"key": page.keys[place], "expected": "no vector, as the bytes do not fit"})
        on_vectors([page.keys[place] for place in places], vectors)
        on_progress(Progress(step="verifying", part=table.part, done=found.rows, total=max(table.rows, found.rows)))
    return found


def _count(
    found: Inventory, page: Page, packing: Packing, on_unfit: OnUnfit, *, keep_zero: bool = False
) -> tuple[list[str | None], NDArray[np.intp], NDArray[np.float32]]:
    """
    Count a page.

    :returns: For each row why it does not fit; the places of those that should have a vector; their vectors.
    """
    present = [place for place, value in enumerate(page.values) if value is not None]
    values = [value for value in page.values if value is not None]
    unpacked = unpack(values, packing)
    kinds: list[str | None] = [None] * len(page.keys)
    for place, value, kind in zip(present, values, unpacked.kinds, strict=True):
        kinds[place] = kind
        if kind:
            found.count(page.keys[place], kind, value)
            on_unfit(page.keys[place], kind, value)
    found.rows += len(page.keys)
    found.with_bytes += len(values)
    places, vectors = unpacked.fitting(keep_zero)
    return kinds, np.array(present, dtype=np.intp)[places], vectors


def _compare(found: Verified, page: Page, places: NDArray[np.intp], vectors: NDArray[np.float32]) -> None:
    there = np.array([page.sent[place] is not None for place in places], dtype=bool)
    for place in places[~there].tolist():
        found.missing.add(page.keys[place])
    keys = [page.keys[place] for place in places.tolist()]
    found.source_sum = (found.source_sum + checksum(keys, vectors)) % 2**128
    sent = [value for place in places[there] if (value := page.sent[place]) is not None]
    back = vectors_sent(sent, vectors.shape[1])
    kept = [page.keys[place] for place in places[there].tolist()]
    found.target_sum = (found.target_sum + checksum(kept, back)) % 2**128
    same = (back.view(np.uint32) == vectors[there].view(np.uint32)).all(axis=1)
    found.equal += int(same.sum())
    for place in places[there][~same].tolist():
        found.different.add({"key": page.keys[place], "expected": "the numbers of the bytes"})
