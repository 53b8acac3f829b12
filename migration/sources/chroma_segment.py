"""
The vectors of a Chroma segment: the files of its HNSW index, read in place.

`header.bin` says how long an element of `data_level0.bin` is and where in it vector and label stand; `length.bin` has the
norms that cosine segments divided their vectors by. Chroma gives vector times norm, in float32, and so does this.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from database.errors import InvalidInputError
from migration.sources.chroma_pickle import Label
from migration.sources.files import CHUNK, open_regular, read_whole

UNREADABLE = -1
"""The element of an id whose label is not in the index, or is marked as deleted."""

_HEADER = struct.Struct("<i6Qii3QdQ")
_DELETED = 0x01
_AT_A_TIME = 10_000
_GAP, _SPAN = 16 * 1024, 4 * CHUNK
_STOP = "Stop whatever writes to it, then start again."
_RESTORE = "Restore the folder from a backup, or let the chromadb that wrote it repair it."


@dataclass(frozen=True, kw_only=True)
class Layout:
    """
    What `header.bin` says.

    :param elements: How many elements `data_level0.bin` holds, also those marked as deleted.
    :param size: Bytes of an element.
    :param vector_at: Where in it the vector begins, in bytes.
    :param label_at: Where in it the label stands, 8 bytes.
    """

    elements: int
    size: int
    vector_at: int
    label_at: int

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return (self.label_at - self.vector_at) // 4

    @classmethod
    def read(cls, path: Path) -> Layout:
        """
        From a `header.bin`.

        :raises InvalidInputError: If it is none.
        """
        data = read_whole(path, at_most=_HEADER.size)
        if len(data) < _HEADER.size:
            raise InvalidInputError(
                f"{path} has {len(data)} bytes; the header of an index has {_HEADER.size}.", hint=_RESTORE
            )
        version, level0_at, _, elements, size, label_at, vector_at, *_ = _HEADER.unpack(data)
        whole = 4 <= vector_at < label_at and (label_at - vector_at) % 4 == 0 and label_at + 8 <= size < 1 << 32
        if version != 1 or level0_at or not whole or elements >= 1 << 32:
            raise InvalidInputError(f"{path} is not the header of an index that chromadb writes.", hint=_RESTORE)
        return cls(elements=elements, size=size, vector_at=vector_at, label_at=label_at)


class Segment:
    """
    A vector segment that has been written to disk.

    :param folder: Its folder, named by its id.
    :param dimension: Length that its vectors should have; `None` if that is not known.
    :param normalised: Whether it holds unit vectors, and their norms apart: the index of a cosine collection.
    :raises InvalidInputError: If its files do not fit together; the message names the one.
    """

    def __init__(self, folder: Path, *, dimension: int | None, normalised: bool) -> None:
        self.folder = folder
        self.layout = Layout.read(folder / "header.bin")
        if dimension is not None and self.layout.elements and self.layout.dimension != dimension:
            raise InvalidInputError(
                f"{folder / 'header.bin'} describes vectors of length {self.layout.dimension:,}, "
                f"but the collection holds vectors of length {dimension:,}.",
                hint=_RESTORE,
            )
        with ExitStack() as files:
            self._elements = files.enter_context(self._open("data_level0.bin", self.layout.size))
            self._norms = files.enter_context(self._open("length.bin", 4)) if normalised else None
            self._files = files.pop_all()

    def close(self) -> None:
        """Close its files."""
        self._files.close()

    def elements_of(self, labels: Iterable[Label]) -> Iterator[tuple[bytes, int]]:
        """
        Where the vectors of ids stand.

        :param labels: Ids with their labels.
        :returns: Each id with the number of its element, or `UNREADABLE`.
        """
        known, alive = self._labels()
        order = np.argsort(known, kind="stable")
        known = known[order]
        labels = iter(labels)
        while batch := list(islice(labels, _AT_A_TIME)):
            ids, numbers = zip(*batch, strict=True)
            wanted = np.array(numbers, dtype=np.int64)
            # of elements with one label the last counts, as it does for the index when it is loaded
            at = np.searchsorted(known, wanted, side="right") - 1
            there = at >= 0
            there[there] = known[at[there]] == wanted[there]
            elements = np.full(len(wanted), UNREADABLE, dtype=np.int64)
            elements[there] = np.where(alive[order[at[there]]], order[at[there]], UNREADABLE)
            yield from zip(ids, elements.tolist(), strict=True)

    def vectors(self, elements: NDArray[np.int64]) -> NDArray[np.float32]:
        """
        The vectors of elements, as Chroma would give them.

        :param elements: Numbers of elements that are there, in any order.
        :returns: Of shape (elements, dimension).
        """
        layout = self.layout
        raw = self._gather(self._elements, elements, layout.size, layout.vector_at, layout.label_at - layout.vector_at)
        vectors = raw.view("<f4").astype(np.float32, copy=False)
        if self._norms is not None:
            with np.errstate(all="ignore"):
                vectors = vectors * self._gather(self._norms, elements, 4, 0, 4).view("<f4").astype(np.float32)
        return vectors

    def _labels(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The label of each element, and whether it is not marked as deleted."""
        layout = self.layout
        labels = np.empty(layout.elements, dtype=np.int64)
        alive = np.empty(layout.elements, dtype=np.bool_)
        step = max(1, CHUNK // layout.size)
        for start in range(0, layout.elements, step):
            count = min(step, layout.elements - start)
            block = self._span(self._elements, start, count, layout.size)
            labels[start : start + count] = block[:, layout.label_at : layout.label_at + 8].copy().view("<i8")[:, 0]
            alive[start : start + count] = block[:, 2] & _DELETED == 0
        return labels, alive

    def _gather(
        self, file: BinaryIO, elements: NDArray[np.int64], size: int, at: int, length: int
    ) -> NDArray[np.uint8]:
        """A piece of each element. They mostly lie together, in another order: then one read has them all."""
        pieces = np.empty((len(elements), length), dtype=np.uint8)
        order = np.argsort(elements, kind="stable")
        gaps = np.flatnonzero(np.diff(elements[order]) * size > _GAP) + 1
        for together in np.split(order, gaps):
            for some in np.array_split(together, -(-len(together) * size // _SPAN) or 1):
                first, last = int(elements[some[0]]), int(elements[some[-1]])
                block = self._span(file, first, last - first + 1, size)
                pieces[some] = block[elements[some] - first, at : at + length]
        return pieces

    def _span(self, file: BinaryIO, first: int, count: int, size: int) -> NDArray[np.uint8]:
        """Elements that lie one behind the other, of shape (count, size)."""
        try:
            data = os.pread(file.fileno(), count * size, first * size)
        except OSError as exc:
            raise InvalidInputError(f"{file.name} cannot be read: {exc.strerror}.") from exc
        if len(data) < count * size:
            raise InvalidInputError(f"{file.name} has become shorter while it is read.", hint=_STOP)
        return np.frombuffer(data, dtype=np.uint8).reshape(count, size)

    def _open(self, name: str, size: int) -> BinaryIO:
        file = open_regular(self.folder / name)
        found, expected = os.fstat(file.fileno()).st_size, self.layout.elements * size
        if found < expected:
            file.close()
            raise InvalidInputError(
                f"{self.folder / name} is cut off: it has {found:,} bytes, and {self.layout.elements:,} elements take "
                f"{expected:,}.",
                hint=_RESTORE,
            )
        return file


def holds_unit_vectors(folder: Path) -> bool:
    """Whether the index was made for the cosine, as far as its first elements tell: they have unit length, and norms beside."""
    with closing(Segment(folder, dimension=None, normalised=True)) as segment:
        first = np.arange(min(segment.layout.elements, 100), dtype=np.int64)
        restored, segment._norms = segment.vectors(first), None
        with np.errstate(all="ignore"):
            lengths = np.linalg.norm(segment.vectors(first), axis=1)
            norms = np.linalg.norm(restored, axis=1)
    return bool(
        np.all(np.isclose(lengths, 1, atol=1e-3) | (lengths == 0)) and np.all(np.isfinite(norms)) and norms.any()
    )
