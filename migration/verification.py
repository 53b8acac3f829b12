"""Reading a table back and comparing it with what the source says must be there, by id and by hash."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from database.migration_target import StoredRow, rows_by_id, stored_rows
from migration.receipt import SHOWN, Finding, PartReceipt
from migration.record_hash import canonical, checksum, hash_of, key_of, pairs

if TYPE_CHECKING:
    from database.connection import Database
    from database.document_rows import Row
    from migration.checking import PartCheck
    from migration.source import Source

BATCH = 4096

Report = Callable[[str, int, int], None]
"""Called with the table's name, how many rows were read, and of how many."""


@dataclass(frozen=True)
class CheckedPart:
    """A part's check, and its books."""

    check: PartCheck
    books: PartReceipt


def hashed(rows: Iterable[StoredRow], *, half: bool) -> Iterator[tuple[bytes, bytes]]:
    """
    Hashes of stored rows: of the id, and of the whole.

    :param half: Whether their vectors are of half precision.
    """
    for row in rows:
        yield key_of(row.id), _hash(row, half=half)


def verify_table(
    owner: Database,
    source: Source,
    table_name: str,
    parts: Sequence[CheckedPart],
    *,
    all_ours: bool,
    report: Callable[[str, int, int | None], None],
) -> None:
    """
    Compare a table with what its parts expect, and write into their books what was found.

    :param all_ours: Whether the migration made the table, so that whatever else it holds is extra.
    :param report: Called after each batch.
    """
    half = parts[0].check.target.model.vector_type == "halfvec"
    seen = [np.zeros(len(part.check.expected), dtype=bool) for part in parts]
    sums: list[list[Any]] = [[np.zeros((0, 2), dtype=np.uint64)] for _ in parts]
    total = sum(len(part.check.expected) for part in parts)
    different: list[list[str]] = [[] for _ in parts]
    others, read = Finding(), 0
    rows = stored_rows(owner, table_name)
    while batch := list(islice(rows, BATCH)):
        keys = pairs([key_of(row.id) for row in batch])
        found = pairs([_hash(row, half=half) for row in batch])
        unknown = np.ones(len(batch), dtype=bool)
        for number, part in enumerate(parts):
            places, wanted = part.check.expected.find(keys)
            hit = places >= 0
            seen[number][places[hit]] = True
            sums[number].append(found[hit].sum(axis=0, dtype=np.uint64).reshape(1, 2))
            unlike = hit & (wanted != found).any(axis=1)
            different[number] += [batch[index].id for index in np.flatnonzero(unlike)]
            unknown &= ~hit
        for index in np.flatnonzero(unknown):
            others.add(batch[index].id)
        read += len(batch)
        report(table_name, read, total)
    for number, part in enumerate(parts):
        part.books.target_checksum = checksum(np.concatenate(sums[number]))
        part.books.missing.count = int((~seen[number]).sum())
        part.books.different.count = len(different[number])
        if part.books.missing.count or part.books.different.count:
            _name(owner, source, table_name, part, seen=seen[number], different=different[number][:SHOWN])
    if all_ours:
        parts[0].books.extra = others
    elif others.count:
        parts[0].books.facts = {**parts[0].books.facts, "other_documents_in_table": others.count}


def _name(
    owner: Database, source: Source, table_name: str, part: CheckedPart, *, seen: Any, different: list[str]
) -> None:
    """Read the source once more, for the ids of what is missing and the fields of what differs."""
    wanted: dict[str, Row] = {}
    records = source.records(part.check.target.part)
    part.books.missing.examples = []
    while batch := list(islice(records, BATCH)):
        expected = [converted for converted, _ in part.check.settled(batch) if converted.kept]
        places, _ = part.check.expected.find([converted.key for converted in expected])
        for converted, place in zip(expected, places, strict=True):
            if not seen[place] and len(part.books.missing.examples) < SHOWN:
                part.books.missing.examples.append(converted.record.id)
            if converted.id in different:
                wanted[converted.id] = converted.row()
    there = rows_by_id(owner, table_name, different)
    part.books.different.examples = [
        {"id": id_, "fields": _unlike(wanted[id_], there[id_])} for id_ in different if id_ in there
    ]


def _unlike(wanted: Row, there: Any) -> list[str]:
    fields = []
    if wanted["content"] != there["content"]:
        fields.append("content")
    if canonical(json.loads(wanted["meta"])) != canonical(there["meta"]):
        fields.append("meta")
    vectors = [_numbers(row["embedding"]) for row in (wanted, there)]
    if vectors[0] != vectors[1]:
        fields.append("embedding")
    if not there["plain"]:
        fields.append("blob")
    return fields


def _numbers(embedding: Any) -> bytes | None:
    from pgvector import Vector

    found = Vector.from_binary(embedding) if isinstance(embedding, bytes) else embedding
    return None if found is None else np.asarray(found.to_numpy(), dtype=np.float32).tobytes()


def _hash(row: StoredRow, *, half: bool) -> bytes:
    vector = row.vector
    if half and vector is not None:
        vector = np.frombuffer(vector, dtype=">f2").astype(">f4").tobytes()
    meta = "null" if row.meta is None else row.meta
    with suppress(ValueError, RecursionError):  # a number of more digits than Python reads: nothing that was migrated
        meta = canonical(json.loads(meta))
    return hash_of(row.id, row.content, meta if row.plain else f"{meta} and a blob", vector)
