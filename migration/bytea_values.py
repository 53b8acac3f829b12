"""float32 numbers packed in bytes: which of them are vectors, in which order their bytes stand, and how PostgreSQL takes many at once."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
from psycopg.adapt import Dumper
from psycopg.pq import Format

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from psycopg import Connection

KINDS = {
    "dimension": "the bytes are of another length than the vectors; keep: the row goes without a vector",
    "not_finite_vector": "NaN or infinity is among the numbers; keep: the row goes without a vector",
    "zero_vector": "the numbers are all zero, which has no cosine; keep: as it is, found by no search for cosine",
}
"""Why bytes may not fit, in the words of the other sources, and what `keep` makes of such a row."""

_USUAL = (1e-12, 1e6)
"""Sizes between which the numbers of embeddings lie; zeros apart."""


@dataclass(frozen=True, slots=True)
class Packing:
    """
    How the numbers are packed.

    :param dimension: Numbers per vector, 1 to 16,000.
    :param big_endian: Whether the most significant byte comes first; NumPy's `tobytes()` writes it last.
    """

    dimension: int
    big_endian: bool = False

    @property
    def size(self) -> int:
        """Bytes of a vector."""
        return 4 * self.dimension

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """NumPy's name of one number."""
        return np.dtype(">f4" if self.big_endian else "<f4")


@dataclass(frozen=True, slots=True)
class Unpacked:
    """
    Many rows' bytes, unpacked.

    :param kinds: For each row why it does not fit, one of `KINDS`; `None` if it does.
    :param places: The rows that are of the right length, in order.
    :param vectors: Their numbers, float32 in this machine's byte order, of shape (len(places), dimension).
    """

    kinds: list[str | None]
    places: NDArray[np.intp]
    vectors: NDArray[np.float32]

    def fitting(self, keep_zero: bool) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """
        Places and vectors of the rows that are to have a vector.

        :param keep_zero: Whether vectors of nothing but zeros are among them.
        """
        taken = (None, "zero_vector") if keep_zero else (None,)
        chosen = np.array([self.kinds[place] in taken for place in self.places], dtype=bool)
        return self.places[chosen], self.vectors[chosen]


def unpack(values: Sequence[bytes], packing: Packing) -> Unpacked:
    """
    Unpack rows.

    :param values: The bytes of each row, of any length.
    """
    places = np.array([place for place, value in enumerate(values) if len(value) == packing.size], dtype=np.intp)
    joined = b"".join([values[place] for place in places])
    kinds: list[str | None] = ["dimension"] * len(values)
    with np.errstate(invalid="ignore"):  # a signalling NaN is no news
        vectors = np.frombuffer(joined, packing.dtype).reshape(-1, packing.dimension).astype(np.float32)
        finite, zero = np.all(np.isfinite(vectors), axis=1), np.all(vectors == 0, axis=1)
    for place, is_finite, is_zero in zip(places.tolist(), finite.tolist(), zero.tolist(), strict=True):
        kinds[place] = "zero_vector" if is_zero else None if is_finite else "not_finite_vector"
    return Unpacked(kinds, places, vectors)


def suspicions(values: Sequence[bytes], packing: Packing) -> list[str]:
    """
    What the values look like, where that is not packed float32 in the byte order that was named; a sentence each.

    :param values: A sample of the rows' bytes, all of `packing.size`.
    """
    if not values:
        return []
    if sum(value.startswith((b"\x93NUMPY", b"\x80\x03", b"\x80\x04", b"\x80\x05")) for value in values) * 2 > len(
        values
    ):
        return ["they begin like a NumPy file or a pickle, which is more than the numbers"]
    order = ">" if packing.big_endian else "<"
    likely = _usual_share(values, f"{order}f4")
    other = "little-endian" if packing.big_endian else "big-endian"
    guesses = {f"{'<' if packing.big_endian else '>'}f4": f"float32 in {other} order"}
    if packing.dimension % 2 == 0:
        guesses |= {"<f8": "float64, which is twice as long", ">f8": "float64, which is twice as long"}
    best, share = max(((name, _usual_share(values, name)) for name in guesses), key=lambda found: found[1])
    if likely < 0.9 and share > max(0.98, likely):
        return [f"they look like {guesses[best]}"]
    return ["they look like float16, which is half as long"] if _is_half(values) else []


def _usual_share(values: Sequence[bytes], dtype: str) -> float:
    """The share of the numbers that are zero or of a usual size."""
    with np.errstate(invalid="ignore"):
        numbers = np.abs(np.frombuffer(b"".join(values), dtype).astype(np.float64))
    usual = (numbers == 0) | ((numbers >= _USUAL[0]) & (numbers <= _USUAL[1]))
    return float(usual.mean())


def _is_half(values: Sequence[bytes]) -> bool:
    """
    Whether they are pairs of float16, which make float32 of usual sizes, too.

    Of the lower halves of float32, one in 32 would be a NaN or an infinity by chance, or few of them differ.
    """
    numbers = np.frombuffer(b"".join(values), "<f2")
    return bool(np.isfinite(numbers).all() and len(np.unique(numbers[::2].view("<u2"))) >= 256)


def checksum(keys: Sequence[Sequence[str]], vectors: NDArray[Any]) -> int:
    """
    Sum of the rows' hashes, over key and numbers, modulo 2**128: the same in any order of the rows.

    :param keys: The key of each row, as text.
    :param vectors: Of shape (rows, dimension).
    """
    little = np.ascontiguousarray(vectors, dtype="<f4")
    total = 0
    for key, numbers in zip(keys, little, strict=True):
        name = b"".join(struct.pack(">I", len(part)) + part for part in (text.encode() for text in key))
        total += int.from_bytes(blake2b(name + numbers.tobytes(), digest_size=16).digest())
    return total % 2**128


@dataclass(frozen=True, slots=True)
class VectorArray:
    """
    Vectors as one parameter, `vector[]` in PostgreSQL's binary format.

    :param vectors: float32, of shape (count, dimension).
    :param oid: Number of the type `vector` in this database.
    """

    vectors: NDArray[np.float32]
    oid: int

    def dump(self) -> bytes:
        """In the format of `array_recv`, each element in that of `vector_recv`."""
        count, dimension = self.vectors.shape
        element = [("size", ">i4"), ("dimension", ">i2"), ("unused", ">i2"), ("numbers", ">f4", (dimension,))]
        elements = np.zeros(count, dtype=element)
        elements["size"], elements["dimension"], elements["numbers"] = 4 + 4 * dimension, dimension, self.vectors
        return struct.pack(">iiIii", 1, 0, self.oid, count, 1) + elements.tobytes()


def register_vector_array(connection: Connection[Any], *, array_oid: int) -> None:
    """
    Let a connection take `VectorArray` as a parameter.

    :param array_oid: Number of the type `vector[]` in this database.
    """

    class VectorArrayDumper(Dumper):
        format = Format.BINARY
        oid = array_oid

        def dump(self, obj: VectorArray) -> bytes:
            return obj.dump()

    connection.adapters.register_dumper(VectorArray, VectorArrayDumper)


def vectors_sent(values: Sequence[bytes], dimension: int) -> NDArray[np.float32]:
    """
    What `vector_send` gave, as numbers.

    :param values: Each of 4 * (1 + dimension) bytes.
    :returns: Of shape (len(values), dimension).
    """
    element = np.dtype([("dimension", ">i2"), ("unused", ">i2"), ("numbers", ">f4", (dimension,))])
    return np.frombuffer(b"".join(values), element)["numbers"].astype(np.float32)
