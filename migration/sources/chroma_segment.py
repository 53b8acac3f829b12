"""
The vectors of a Chroma segment: the files of its HNSW index, read in place.

`header.bin` says how long an element of `data_level0.bin` is and where in it vector and label stand; `length.bin` has the
norms that cosine segments divided their vectors by. Chroma gives vector times norm, in float32, and so does this.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
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
_GAP, _SPAN = 8 * 1024, 4 * CHUNK
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
    :param cosine: Whether it should be the index of a cosine collection; its own vectors are believed before this.
    :raises InvalidInputError: If its files do not fit together; the message names the one.
    """

    def __init__(self, folder: Path, *, dimension: int | None, cosine: bool) -> None:
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
            self._norms = files.enter_context(self._open("length.bin", 4))
            self.made_for_cosine = self._tell_cosine()
            self._normalised = cosine if self.made_for_cosine is None else self.made_for_cosine
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
        vectors = self._stored(elements)
        if self._normalised:
            with np.errstate(all="ignore"):
                vectors = vectors * self._lengths(elements)
        return vectors

    def _stored(self, elements: NDArray[np.int64]) -> NDArray[np.float32]:
        layout = self.layout
        raw = self._gather(self._elements, elements, layout.size, layout.vector_at, layout.label_at - layout.vector_at)
        return raw.view("<f4").astype(np.float32, copy=False)

    def _lengths(self, elements: NDArray[np.int64]) -> NDArray[np.float32]:
        """Norms of the vectors as they were given, in a column; of an index for another distance, whatever was in memory."""
        return self._gather(self._norms, elements, 4, 0, 4).view("<f4").astype(np.float32, copy=False)

    def _tell_cosine(self) -> bool | None:
        """Whether the first elements are unit vectors and have norms that could be some; `None` if there are none to tell."""
        first = np.arange(min(self.layout.elements, 200), dtype=np.int64)
        with np.errstate(all="ignore"):
            found = np.linalg.norm(self._stored(first).astype(np.float64), axis=1)
            told = np.isfinite(found) & (found > 0)
            length = self._lengths(first)[told, 0]
            likely = (np.abs(found[told] - 1) < 1e-3) & (length > 1e-6) & (length < 1e6)
        return bool(likely.mean() > 0.75) if len(likely) else None

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
                if not len(some):
                    continue
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
