"""The two Parquet files of chromadb 0.3, read in batches by pyarrow, and records from their rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from database.errors import ConfigurationError, InvalidInputError
from migration.source import Loss, Record

if TYPE_CHECKING:
    from pyarrow import ListArray, RecordBatch
    from pyarrow.parquet import ParquetFile

REQUIREMENT = "pyarrow>=14"

COLLECTIONS, EMBEDDINGS = "chroma-collections.parquet", "chroma-embeddings.parquet"
ROUNDED = "rounded_to_float32"
OWNER, ID = "collection_uuid", "id"

_ROW = (OWNER, "embedding", "document", ID, "metadata")
_COLUMNS = {COLLECTIONS: ("uuid", "name", "metadata"), EMBEDDINGS: _ROW}
_IDS_AT_ONCE, _ROWS_AT_ONCE = 1 << 16, 2048
_BUFFER = 1 << 20
"""Bytes read ahead of a column. Without it a whole row group's vectors would be, 122,880 of them."""


class ParquetFiles:
    """
    Both files, open for reading.

    :param folder: Where they are.
    :raises ConfigurationError: If pyarrow is not installed.
    :raises InvalidInputError: If one is missing, damaged, or not Chroma's; also raised by every method.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / EMBEDDINGS
        collections = _open(folder / COLLECTIONS)
        with _reading(folder / COLLECTIONS):
            self.collections: list[dict[str, Any]] = collections.read(list(_COLUMNS[COLLECTIONS])).to_pylist()
        collections.close(force=True)
        self._file = _open(self._path)
        metadata = self._file.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._starts = [sum(sizes[:group]) for group in range(len(sizes) + 1)]

    def close(self) -> None:
        """Close the files."""
        self._file.close(force=True)

    def ids(self) -> Iterator[tuple[int, int, list[str], list[str | None]]]:
        """Batches of the whole: the number of the first row, that of the row group, collections, and ids."""
        for start, group, batch in self._batches((OWNER, ID), range(len(self._starts) - 1), _IDS_AT_ONCE):
            owners, ids = (column.to_pylist() for column in batch.columns)
            yield start, group, [str(owner) for owner in owners], ids

    def records(self, owner: str, groups: Sequence[int], *, after: int = -1) -> Iterator[Record]:
        """
        A collection's records.

        :param owner: Its id.
        :param groups: The row groups that have any.
        :param after: Go on behind this row.
        """
        rest = [group for group in groups if self._starts[group + 1] > after + 1]
        for start, _, batch in self._batches(_ROW, rest, _ROWS_AT_ONCE):
            owners = batch.column(0).to_pylist()
            mine = [n for n, each in enumerate(owners) if each == owner and start + n > after]
            if mine:
                yield from _records(batch if len(mine) == len(owners) else batch.take(mine), [start + n for n in mine])

    def _batches(
        self, columns: Sequence[str], groups: Sequence[int], rows: int
    ) -> Iterator[tuple[int, int, RecordBatch]]:
        from pyarrow import default_memory_pool

        with _reading(self._path):
            for group in groups:
                start = self._starts[group]
                # Threads would hold a page of every column at once.
                for batch in self._file.iter_batches(rows, [group], list(columns), use_threads=False):
                    yield start, group, batch.select(columns)
                    start += batch.num_rows
                default_memory_pool().release_unused()


def _open(path: Path) -> ParquetFile:
    try:
        from pyarrow import parquet
    except ImportError as exc:
        raise ConfigurationError(
            "Reading a Chroma directory of version 0.3 needs pyarrow, which is not installed.",
            hint=f'pip install "{REQUIREMENT}"',
        ) from exc
    if not path.is_file():
        raise InvalidInputError(
            f"{path.parent} has no {path.name}: chromadb 0.3 writes {COLLECTIONS} and {EMBEDDINGS}, and both are needed."
        )
    with _reading(path):
        file = parquet.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)
    if missing := [name for name in _COLUMNS[path.name] if name not in file.schema_arrow.names]:
        found = ", ".join(file.schema_arrow.names)
        file.close(force=True)
        raise InvalidInputError(
            f"{path} is not Chroma's: the columns {', '.join(missing)} are missing, found: {found}."
        )
    return file


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    from pyarrow import ArrowException

    try:
        yield
    except (ArrowException, OSError, UnicodeDecodeError) as exc:
        raise InvalidInputError(
            f"{path} cannot be read; it is damaged, or no Parquet file: {exc}", hint="Take it from a backup."
        ) from exc


def _records(batch: RecordBatch, positions: Sequence[int]) -> Iterator[Record]:
    _, embeddings, documents, ids, metadatas = batch.columns
    rows = zip(
        ids.to_pylist(), documents.to_pylist(), metadatas.to_pylist(), _vectors(embeddings), positions, strict=True
    )
    for id, document, text, (vector, rounded), position in rows:
        meta, losses = _meta(text)
        yield Record(id, document, meta, vector, position, losses, (ROUNDED,) if rounded else ())


def _meta(text: str | None) -> tuple[dict[str, Any], tuple[Loss, ...]]:
    """Metadata from the JSON that Python wrote, with its NaN and Infinity."""
    if text is None:
        return {}, ()
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError):
        return {}, (Loss("unreadable", "meta", text),)
    if meta is None:
        return {}, ()
    return (meta, ()) if isinstance(meta, dict) else ({}, (Loss("unreadable", "meta", text),))


def _vectors(column: ListArray) -> Iterator[tuple[NDArray[np.float32] | None, bool]]:
    """Each vector in float32, and whether it was none."""
    doubles = column.flatten().to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        singles = doubles.astype(np.float32)
    other = (singles != doubles) & ~np.isnan(doubles)
    any_other = bool(other.any())
    start = 0
    for length in column.value_lengths().to_pylist():
        if length is None:
            yield None, False
            continue
        end = start + length
        yield singles[start:end], any_other and bool(other[start:end].any())
        start = end
