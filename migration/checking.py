"""The check of one part: what becomes of each record, decided and hashed before the first is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from database.document_rows import Row
from migration.conversion import KINDS, Converted, Converter
from migration.receipt import Change, PartReceipt, printable
from migration.record_hash import HashIndex, pairs
from migration.source import Position, Record

if TYPE_CHECKING:
    from migration.engine import Options
    from migration.rejects import RejectsFile
    from migration.targets import Target

BATCH = 2000
"""Records at a time: what a kill loses of the load, and what is held in memory."""

ONE_LENGTH = 1e-4
"""Vectors whose lengths differ by less than this share of the longest rank alike by cosine, l2 and inner product."""


@dataclass(kw_only=True)
class TableBefore:
    """
    What a table holds before the run goes on.

    :param rows: Its documents' hashes.
    :param conflicts: Hashes of the ids that this run found there with other contents, now or when it was begun.
    :param positions: Up to where the parts are written, by part.
    :param originals: Gives documents as they were before the run, by id.
    """

    rows: HashIndex = field(default_factory=HashIndex)
    conflicts: set[bytes] = field(default_factory=set)
    positions: Mapping[str, Position | None] = field(default_factory=dict)
    originals: Callable[[list[str]], Mapping[str, Any]] = field(default=lambda ids: {})


@dataclass(order=True, slots=True)
class Query:
    """A record that is searched for: the hash of its id, by which it was drawn, its id, and the source's vector."""

    key: bytes
    id: str = field(compare=False)
    vector: NDArray[np.float32] = field(compare=False)


class PartCheck:
    """
    The check of one part.

    :param target: The part, and where it goes.
    :param options: What the user chose.
    :param before: What the table holds.
    :param earlier: What other parts bring to the same table.
    """

    def __init__(
        self, target: Target, options: Options, *, before: TableBefore, earlier: Sequence[HashIndex] = ()
    ) -> None:
        self.target, self.options, self.before = target, options, before
        self.expected = HashIndex()
        """What must be in the table in the end."""
        self.new = self.new_before_checkpoint = self.searchable = 0
        """Rows that are to be written; those of them that the run seemed to have written; those with a vector to find."""
        self.conflicting: list[str] = []
        """Ids under which the table has other documents."""
        self.undecided: dict[str, int] = {}
        """Records that need a decision, by kind."""
        self.last: Position | None = None
        self.queries: list[Query] = []
        self._checkpoint = before.positions.get(target.part.id)
        self._converter = Converter(
            target.part.name,
            dimension=target.model.dimension,
            vector_type=target.model.vector_type,
            policies=options.policies,
            taken=_any_of(earlier) if earlier else None,
        )

    def add(self, batch: Sequence[Record], books: PartReceipt, rejects: RejectsFile) -> None:
        """Check the next records."""
        passed = self._checkpoint is not None
        for converted, there in self.settled(batch):
            books.records += 1
            _count(converted, books)
            if converted.losses:
                self._keep_originals(converted, books, rejects)
            if converted.kept:
                self.expected.add(converted.key, converted.hash)
                if converted.searchable:
                    self.searchable += 1
                    self._consider(converted)
                if not there:
                    self.new += 1
                    self.new_before_checkpoint += passed
            if passed and converted.record.position == self._checkpoint:
                passed, self._checkpoint = False, None
        self.last = batch[-1].position

    def end(self, books: PartReceipt) -> None:
        """Close the books of the source's side."""
        books.source_checksum = self.expected.checksum()
        if repeated := self.expected.repeated():
            books.checks["ids"] = {"passed": False, "found": f"the source gave {repeated:,} ids more than once"}
        if books.records != self.target.part.count:
            found = f"the source says {self.target.part.count:,} records, but {books.records:,} could be read"
            books.checks["count"] = {"passed": False, "found": found}
        low, high = self._converter.smallest, self._converter.largest
        books.facts = {**books.facts, "vector_lengths": [low, high]}

    def problems(self) -> list[str]:
        """What stands in the way: a ranking that would change, records that nobody has decided on."""
        return [*self._rank_change(), *(_undecided(kind, count) for kind, count in self.undecided.items())]

    def _rank_change(self) -> list[str]:
        part, low, high = self.target.part, self._converter.smallest, self._converter.largest
        if part.distance == "cosine" or self.options.accept_rank_change or high - low <= ONE_LENGTH * high:
            return []
        return [
            f"{printable(part.name)} was searched by {part.distance}, and its vectors have lengths from {low:.4g} to {high:.4g}: by "
            "cosine they rank differently (--accept-rank-change migrates them all the same, and shows by how much)"
        ]

    def settled(self, batch: Sequence[Record]) -> list[tuple[Converted, bool]]:
        """What becomes of records, and whether each is in the table as it should be."""
        converted = self._converter.convert(batch)
        if not len(self.before.rows) and not self.before.conflicts:
            return [(one, False) for one in converted]
        places, hashes = self.before.rows.find([one.key for one in converted])
        known = places >= 0
        same = known & (hashes == pairs([one.hash for one in converted])).all(axis=1)
        result = []
        for one, is_known, is_same in zip(converted, known, same, strict=True):
            conflict = one.key in self.before.conflicts or (is_known and not is_same and one.kept)
            result.append((self._converter.conflicting(one) if conflict else one, bool(is_same)))
        return result

    def rows_to_write(self, batch: Sequence[Record]) -> tuple[list[Row], set[str]]:
        """The rows of a batch that the table lacks, and the ids of those that replace others."""
        rows: list[Row] = []
        replaced: set[str] = set()
        for converted, there in self.settled(batch):
            if converted.kept and not there:
                rows.append(converted.row())
                if any(loss.kind == "conflict" for loss in converted.losses):
                    replaced.add(converted.id)
        return rows, replaced

    def _keep_originals(self, converted: Converted, books: PartReceipt, rejects: RejectsFile) -> None:
        for kind in sorted({loss.kind for loss in converted.losses}):
            change = books.changes.setdefault(kind, Change(policy=self.options.policies[kind]))
            change.records += 1
            if converted.action == "stopped" and change.policy == "stop":
                self.undecided[kind] = self.undecided.get(kind, 0) + 1
        conflict = any(loss.kind == "conflict" for loss in converted.losses)
        if conflict:
            self.conflicting.append(converted.id)
        replaced = self.before.originals([converted.id]) if conflict and converted.kept else {}
        for loss in converted.losses:
            original = replaced.get(converted.id, loss.original) if loss.kind == "conflict" else loss.original
            rejects.write(
                part=books.name,
                id=converted.record.id,
                kind=loss.kind,
                action=converted.action,
                field=loss.field,
                original=original,
            )
        if converted.action == "rejected":
            record = converted.record
            whole = {"content": record.content, "meta": record.meta, "embedding": record.embedding}
            rejects.write(
                part=books.name, id=record.id, kind="rejected", action="rejected", field="record", original=whole
            )

    def _consider(self, converted: Converted) -> None:
        """Draw queries by the hash of their ids: always the same ones, as if at random."""
        wanted = self.options.queries
        if not wanted or (len(self.queries) == wanted and converted.key > self.queries[-1].key):
            return
        vector = np.array(converted.record.embedding, dtype=np.float32)
        self.queries.append(Query(converted.key, converted.id, vector))
        self.queries.sort()
        del self.queries[wanted:]


def _undecided(kind: str, count: int) -> str:
    return f"{count:,} record{'s need' if count > 1 else ' needs'} a decision, {kind}: {KINDS[kind]}"


def _count(converted: Converted, books: PartReceipt) -> None:
    if converted.action == "copied":
        books.copied += 1
    elif converted.action == "changed":
        books.changed += 1
    elif converted.action == "rejected":
        books.rejected += 1
    for name in converted.record.notes:
        books.notes[name] = books.notes.get(name, 0) + 1


def _any_of(indexes: Sequence[HashIndex]) -> Callable[[bytes], bool]:
    return lambda key: any(index.find([key])[0][0] >= 0 for index in indexes)
