"""
From a source's records to rows that PostgreSQL keeps exactly as they are.

Most records pass unchanged. What cannot has a kind, and the user's policy for it decides: `stop` before anything is written,
`keep` the record with the change that the kind names, or `reject` the record. Equal input gives equal output, at any time.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from database.document_rows import MAX_ID_LENGTH, Row, json_text
from database.errors import InvalidInputError
from migration.record_hash import canonical, hash_of, key_of
from migration.source import Loss, Record

Policy = Literal["stop", "keep", "reject"]
Action = Literal["copied", "changed", "rejected", "stopped"]

KINDS = {
    "nul": "text has U+0000, which PostgreSQL cannot hold (keep: U+FFFD stands in its place)",
    "surrogate": "text has lone surrogates, which no encoding can hold (keep: U+FFFD stands in their place)",
    "not_finite": "metadata has NaN or infinity, which JSON has not (keep: null stands in its place)",
    "number": "metadata has a number that jsonb would change (keep: as jsonb has it, -0.0 as 0.0)",
    "unsupported_value": "metadata has a value that JSON has no form for (keep: its text)",
    "unreadable": "the source holds something of the record that cannot be decoded (keep: without it)",
    "repeated_id": "the source holds other records under the id (keep: the last one)",
    "long_id": "the id has more than 128 characters (keep: its beginning and a hash)",
    "empty_id": "the id is empty, which Haystack takes for none (keep: a hash)",
    "reserved_id": "the id looks like one that a migration has made (keep: with a hash)",
    "id_collision": "another part that goes to the same table has the id (keep: with the part's name and a hash)",
    "missing_vector": "the record has no vector (keep: it is found by its words alone)",
    "dimension": "the vector has another dimension than the table (keep: the record without it)",
    "not_finite_vector": "the vector has NaN or infinity (keep: the record without it)",
    "zero_vector": "the vector is zero, which has no cosine (keep: as it is, found by its words alone)",
    "half_precision": "above 2,000 dimensions vectors are kept in half precision (keep: rounded)",
    "extra_vectors": "the record has other vectors beside the chosen one (keep: without them)",
    "conflict": "the table has another document with the id (keep: the source's replaces it, reject: the table's stays)",
}
"""Every change that a record can undergo, and what `keep` makes of it."""

_MADE = re.compile(r"~[0-9a-f]{32}\Z")
_SUSPICIOUS = re.compile(r"\\u0000|-0\.0[,}\]]|\de\+\d|[\ud800-\udfff]")
_DIMENSION = struct.Struct(">HH")
"""What stands before a vector's numbers: how many they are, and nothing."""

_SURROGATE = re.compile(r"[\ud800-\udfff]")


@dataclass(slots=True)
class Converted:
    """
    What becomes of a record.

    :param record: As the source gave it.
    :param action: `copied` as it is, `changed`, `rejected`, or `stopped` for a decision.
    :param losses: What changes, with the originals.
    :param id: The row's id.
    :param content: The row's text.
    :param meta: The row's metadata, as JSON text that jsonb gives back unchanged.
    :param vector: The row's embedding, in the table's precision; `None` if it has none.
    :param sent: The same as pgvector sends its numbers: big-endian float32.
    :param key: Hash of the row's id.
    :param hash: Hash of the row.
    """

    record: Record
    action: Action
    losses: tuple[Loss, ...]
    id: str
    content: str | None
    meta: str
    vector: NDArray[Any] | None
    sent: bytes | None
    key: bytes
    hash: bytes

    @property
    def kept(self) -> bool:
        """Whether it is to be in the table."""
        return self.action in ("copied", "changed")

    @property
    def searchable(self) -> bool:
        """Whether a search by vector can find it: a zero vector has no cosine, and no place in the index."""
        return self.kept and self.vector is not None and all(loss.kind != "zero_vector" for loss in self.losses)

    def row(self) -> Row:
        """For the documents table."""
        from pgvector import Vector

        embedding: Vector | bytes | None = None
        if self.sent is not None and self.vector is not None:
            half = self.vector.dtype == np.float16
            embedding = Vector(self.vector) if half else _DIMENSION.pack(len(self.vector), 0) + self.sent
        return {
            "id": self.id,
            "embedding": embedding,
            "content": self.content,
            "blob_data": None,
            "blob_meta": None,
            "blob_mime_type": None,
            "meta": self.meta,
        }


def checked_policies(given: Mapping[str, str]) -> dict[str, Policy]:
    """
    A policy for every kind: as given, otherwise `stop`.

    :raises InvalidInputError: If a kind or a policy does not exist.
    """
    for kind, policy in given.items():
        if kind not in KINDS:
            raise InvalidInputError(f"A kind of change was expected, one of {', '.join(KINDS)}, but found {kind!r}.")
        if policy not in get_args(Policy):
            raise InvalidInputError(f"The policy for {kind} must be stop, keep or reject, but is {policy!r}.")
    return {kind: given.get(kind, "stop") for kind in KINDS}  # type: ignore[misc]


class Converter:
    """
    Converts the records of one part for one table.

    :param part: The part's name.
    :param dimension: Of the table's embeddings.
    :param vector_type: `vector` or `halfvec`.
    :param policies: By kind.
    :param taken: Tells which ids other parts bring to the same table, given their hashes.
    """

    def __init__(
        self,
        part: str,
        *,
        dimension: int,
        vector_type: str,
        policies: Mapping[str, Policy],
        taken: Callable[[bytes], bool] | None = None,
    ) -> None:
        self._part, self._dimension, self._half = part, dimension, vector_type == "halfvec"
        self._policies = policies
        self._taken = taken or (lambda key: False)
        self.largest = self.smallest = 0.0
        """The longest and shortest vector so far, without zero vectors."""

    def convert(self, records: Sequence[Record]) -> list[Converted]:
        """Convert a batch; the result is in its order."""
        vectors, sent, losses = self._vectors(records)
        return [self._converted(*one) for one in zip(records, vectors, sent, losses, strict=True)]

    def _vectors(
        self, records: Sequence[Record]
    ) -> tuple[list[NDArray[Any] | None], list[bytes | None], list[Loss | None]]:
        """Each record's vector in the table's precision, its bytes as pgvector sends them, and what is wrong with it."""
        losses = [self._misfit(record) for record in records]
        fitting = [index for index, loss in enumerate(losses) if loss is None]
        vectors: list[NDArray[Any] | None] = [None] * len(records)
        sent: list[bytes | None] = [None] * len(records)
        if not fitting:
            return vectors, sent, losses
        matrix = np.stack([np.asarray(records[index].embedding, dtype=np.float32) for index in fitting])
        lengths = np.sqrt(np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64))
        with np.errstate(over="ignore"):
            kept = matrix.astype(np.float16) if self._half else matrix
        finite = np.isfinite(lengths) & np.isfinite(kept).all(axis=1)
        zero = np.logical_not(kept.any(axis=1))
        rounded = (kept != matrix).any(axis=1) if self._half else np.zeros(len(fitting), dtype=bool)
        encoded, size = kept.astype(">f4").tobytes(), 4 * self._dimension
        for place, index in enumerate(fitting):
            if not finite[place]:
                losses[index] = Loss("not_finite_vector", "embedding", records[index].embedding)
                continue
            vectors[index], sent[index] = kept[place], encoded[place * size : (place + 1) * size]
            if zero[place]:
                losses[index] = Loss("zero_vector", "embedding", records[index].embedding)
            elif rounded[place]:
                losses[index] = Loss("half_precision", "embedding", records[index].embedding)
        real = lengths[finite & ~zero]
        if len(real):
            self.largest = max(self.largest, float(real.max()))
            self.smallest = min(self.smallest or math.inf, float(real.min()))
        return vectors, sent, losses

    def _misfit(self, record: Record) -> Loss | None:
        if record.embedding is None:
            known = any(loss.field == "embedding" and loss.kind != "extra_vectors" for loss in record.losses)
            return Loss("unreadable" if known else "missing_vector", "embedding", None)
        if record.embedding.shape != (self._dimension,):
            return Loss("dimension", "embedding", record.embedding)
        return None

    def _converted(
        self, record: Record, vector: NDArray[Any] | None, sent: bytes | None, loss: Loss | None
    ) -> Converted:
        losses = list(record.losses)
        if loss is not None and not (loss.kind == "unreadable" and loss.original is None):
            losses.append(loss)
        meta, text = self._meta(record.meta, losses)
        content = _clean(record.content, "content", losses) if record.content is not None else None
        id_ = self._id(record.id, losses)
        key = key_of(id_)
        if self._taken(key):
            losses.append(Loss("id_collision", "id", record.id))
            id_ = _made(f"{self._part}/{record.id}", like=id_)
            key = key_of(id_)
        hash_ = hash_of(id_, content, meta, sent)
        return Converted(record, self._action(losses), tuple(losses), id_, content, text, vector, sent, key, hash_)

    def conflicting(self, converted: Converted) -> Converted:
        """The same where the table has, or had, another document with the id."""
        losses = (*converted.losses, Loss("conflict", "record", _whole(converted.record)))
        return replace(converted, action=self._action(losses), losses=losses)

    def _action(self, losses: Sequence[Loss]) -> Action:
        if not losses:
            return "copied"
        policies = {self._policies[loss.kind] for loss in losses}
        return "rejected" if "reject" in policies else "stopped" if "stop" in policies else "changed"

    def _id(self, id_: str, losses: list[Loss]) -> str:
        kept: list[Loss] = []
        clean = _clean(id_, "id", kept)
        if len(clean) > MAX_ID_LENGTH:
            kept.append(Loss("long_id", "id", id_))
        if not id_:
            kept.append(Loss("empty_id", "id", id_))
        if not kept and _MADE.search(id_):
            kept.append(Loss("reserved_id", "id", id_))
        losses.extend(kept)
        return _made(id_, like=clean) if kept else id_

    def _meta(self, meta: dict[str, Any], losses: list[Loss]) -> tuple[str, str]:
        """Metadata as canonical JSON, and as the JSON that jsonb gives back unchanged."""
        try:
            text = canonical(meta)
            if _SUSPICIOUS.search(text) is None:
                return text, text
        except (TypeError, ValueError, RecursionError):
            pass
        try:
            clean = _sanitised(meta, "meta", losses)
            return canonical(clean), json_text(clean, where="meta")
        except (RecursionError, InvalidInputError):
            losses.append(Loss("unreadable", "meta", _shown(meta)))
            return "{}", "{}"


def _made(original: str, *, like: str) -> str:
    """An id that none of a source can have by itself: readable where it begins, unique by its hash."""
    digest = hashlib.sha256(original.encode(errors="surrogatepass")).hexdigest()[:32]
    return f"{like[: MAX_ID_LENGTH - 33]}~{digest}"


def _clean(text: str, field: str, losses: list[Loss]) -> str:
    """Text without what PostgreSQL cannot hold."""
    original = text
    if "\x00" in text:
        losses.append(Loss("nul", field, original))
        text = text.replace("\x00", "\ufffd")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            losses.append(Loss("surrogate", field, original))
            text = _SURROGATE.sub("\ufffd", text)
    return text


def _sanitised(value: Any, field: str, losses: list[Loss]) -> Any:
    """A value as jsonb holds it; what changes is added to the losses."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _clean(value, field, losses)
    if isinstance(value, int):
        return _integer(value, field, losses)
    if isinstance(value, float):
        return _number(value, field, losses)
    if isinstance(value, dict):
        return _mapping(value, field, losses)
    if isinstance(value, list | tuple):
        return [_sanitised(item, f"{field}[{index}]", losses) for index, item in enumerate(value)]
    losses.append(Loss("unsupported_value", field, value))
    return _clean(str(value), field, [])


def _mapping(value: dict[Any, Any], field: str, losses: list[Loss]) -> dict[str, Any]:
    clean: dict[str, Any] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            losses.append(Loss("unsupported_value", f"{field}.{key}", key))
        name = _clean(str(key), f"{field}.{key}", losses)
        while name in clean or (name != key and name in value):
            name += "\ufffd"
        clean[name] = _sanitised(item, f"{field}.{key}", losses)
    return clean


def _integer(value: int, field: str, losses: list[Loss]) -> int | None:
    try:
        int.__repr__(value)  # Python does not write out more than 4,300 digits, nor does the way back read them
    except ValueError:
        losses.append(Loss("number", field, hex(value)))
        return None
    return value


def _number(value: float, field: str, losses: list[Loss]) -> float | None:
    if not math.isfinite(value):
        losses.append(Loss("not_finite", field, value))
        return None
    if value == 0 and math.copysign(1, value) < 0:
        losses.append(Loss("number", field, value))
        return 0.0
    return float(value)


def _whole(record: Record) -> dict[str, Any]:
    return {"content": record.content, "meta": record.meta, "embedding": record.embedding}


def _shown(value: Any) -> str:
    try:
        return json.dumps(value, default=str)
    except (RecursionError, ValueError):
        return f"{type(value).__name__}, too deep to be written"
