"""
One hash per record, over all that a documents table keeps of it, and compact indexes of such hashes.

The hash is BLAKE2b of 128 bits over id, content, metadata and vector, each with its length before it: text as UTF-8, metadata
as JSON with sorted keys, the vector as big-endian float32. So it tells a flipped bit, a 1 from a 1.0, and no text from an empty one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")).encode

Hashes = NDArray[np.uint64]
"""128-bit hashes, of shape (n, 2)."""


def canonical(meta: Any) -> str:
    """
    Metadata as the one JSON text that equal metadata have.

    :raises ValueError: For NaN and infinity.
    """
    return _encode(meta)


def key_of(id: str) -> bytes:
    """The hash that stands for an id; 16 bytes."""
    return blake2b(id.encode(), digest_size=16).digest()


def hash_of(id: str, content: str | None, meta: str, vector: bytes | None) -> bytes:
    """
    The hash of a record; 16 bytes.

    :param meta: `canonical` JSON.
    :param vector: Big-endian float32.
    """
    parts = [id.encode(), None if content is None else content.encode(), meta.encode(), vector]
    lengths = b" ".join(b"-" if part is None else b"%d" % len(part) for part in parts)
    return blake2b(b"".join([lengths, b"\n", *(part or b"" for part in parts)]), digest_size=16).digest()


class HashIndex:
    """
    Records' hashes by their ids' hashes: 32 bytes each, and as much again while they are sorted.

    Two ids with one hash would have to be found by chance among 2^128.
    """

    def __init__(self) -> None:
        self._entries = bytearray()
        self._sorted: tuple[Hashes, Hashes] | None = None

    def __len__(self) -> int:
        return len(self._entries) // 32 if self._sorted is None else len(self._sorted[0])

    def add(self, key: bytes, hash: bytes) -> None:
        """Add a record."""
        self._entries += key + hash

    def repeated(self) -> int:
        """How many ids were added more than once."""
        keys, _ = self._frozen()
        return int((keys[1:] == keys[:-1]).all(axis=1).sum())

    def checksum(self) -> str:
        """Sum of all hashes, each half modulo 2^64: 32 hexadecimal digits, whatever the order."""
        return checksum(self._frozen()[1])

    def find(self, wanted: Sequence[bytes] | Hashes) -> tuple[NDArray[np.intp], Hashes]:
        """
        Look ids up.

        :param wanted: Ids' hashes.
        :returns: Places, -1 where an id is not known, and the records' hashes there, of no meaning at -1.
        """
        keys, hashes = self._frozen()
        sought = wanted if isinstance(wanted, np.ndarray) else _pairs(b"".join(wanted))
        if not len(keys):
            return np.full(len(sought), -1), np.zeros((len(sought), 2), dtype=np.uint64)
        places = np.minimum(np.searchsorted(keys[:, 0], sought[:, 0]), len(keys) - 1)
        while True:  # ids that share the first half of their hash stand side by side
            beyond = (keys[places, 0] == sought[:, 0]) & (keys[places, 1] < sought[:, 1]) & (places + 1 < len(keys))
            if not beyond.any():
                break
            places = places + beyond
        places = np.where((keys[places] == sought).all(axis=1), places, -1)
        return places, hashes[places]

    def _frozen(self) -> tuple[Hashes, Hashes]:
        if self._sorted is None:
            entries = np.frombuffer(self._entries, dtype=">u8").reshape(-1, 4)  # no copy: there may be millions
            entries = entries[np.lexsort((entries[:, 1], entries[:, 0]))].astype(np.uint64)
            self._entries = bytearray()
            self._sorted = entries[:, :2], entries[:, 2:]
        return self._sorted


def checksum(hashes: Hashes) -> str:
    """Sum of hashes, each half modulo 2^64: 32 hexadecimal digits."""
    high, low = hashes.sum(axis=0, dtype=np.uint64) if len(hashes) else (0, 0)
    return f"{int(high):016x}{int(low):016x}"


def pairs(hashes: Sequence[bytes]) -> Hashes:
    """Hashes as an array of shape (n, 2)."""
    return _pairs(b"".join(hashes))


def _pairs(data: bytes) -> Hashes:
    return np.frombuffer(data, dtype=">u8").astype(np.uint64).reshape(-1, 2)
