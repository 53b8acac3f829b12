"""A source of records that stand in memory, for tests of the engine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from migration.source import Distance, Part, Position, Record

DIMENSION = 8


class RecordSource:
    """
    Parts by name, each a list of records. Positions are places in the list.

    :param parts: Changing the lists changes the fingerprint.
    :param distance: Of all parts.
    """

    kind, location, version = "records", "memory", "1"

    def __init__(
        self, parts: dict[str, list[Record]], *, distance: Distance = "cosine", dimension: int = DIMENSION
    ) -> None:
        self.contents, self.distance, self.dimension = parts, distance, dimension

    def parts(self) -> list[Part]:
        return [
            Part(id=f"part {name}", name=name, count=len(records), dimension=self.dimension, distance=self.distance)
            for name, records in self.contents.items()
        ]

    def records(self, part: Part, *, after: Position | None = None) -> Iterator[Record]:
        start = 0 if after is None else int(str(after)) + 1
        for position, record in enumerate(self.contents[part.name][start:], start):
            yield replace(record, position=position)

    def fingerprint(self) -> str:
        text = repr([(name, [_all_of(record) for record in records]) for name, records in self.contents.items()])
        return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()

    def close(self) -> None:
        pass


def record(number: int, *, dimension: int = DIMENSION, **changes: object) -> Record:
    """A harmless record with a vector of length 1."""
    vector = np.random.default_rng(number).standard_normal(dimension)
    plain = Record(
        id=f"id {number}",
        content=f"The text of record {number}.",
        meta={"number": number, "half": number / 2, "even": number % 2 == 0, "tags": ["a", "b"]},
        embedding=(vector / np.linalg.norm(vector)).astype(np.float32),
        position=0,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def records(count: int, *, first: int = 0) -> list[Record]:
    """Harmless records."""
    return [record(number) for number in range(first, first + count)]


def vector(*values: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """A float32 vector."""
    return np.array(values, dtype=np.float32)


def ids(found: Sequence[Record]) -> list[str]:
    """Their ids."""
    return [one.id for one in found]


def _all_of(one: Record) -> tuple[object, ...]:
    return one.id, one.content, repr(one.meta), None if one.embedding is None else one.embedding.tobytes()
