"""The documents table that a migration writes to: read whole, and written a batch at a time with the run's checkpoint."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.sql import SQL, Identifier

from database.bulk_load import BulkLoad
from database.bulk_load import Progress as LoadReport
from database.document_rows import Row, copy_rows, merge_rows
from database.migration_runs import checkpoint, note_rows
from database.sql import statements

if TYPE_CHECKING:
    from database.connection import Database
    from database.models import EmbeddingModel

_SQL = statements(Path(__file__).with_suffix(".sql"))


@dataclass(frozen=True, slots=True)
class StoredRow:
    """
    A document as the table holds it.

    :param id: Its id.
    :param vector: Its embedding as pgvector sends it: big-endian float32, or float16 of a halfvec; `None` without one.
    :param content: Its text.
    :param meta: Its metadata as JSON text.
    :param plain: Whether nothing stands in the columns for blobs.
    """

    id: str
    vector: bytes | None
    content: str | None
    meta: str | None
    plain: bool


def stored_rows(owner: Database, table_name: str) -> Iterator[StoredRow]:
    """All documents of a table, in no order, in one read and bounded memory."""
    statement = SQL(_SQL["copy_out"]).format(table=Identifier(table_name))
    with owner.unpooled() as connection, connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types(["text", "bytea", "text", "bytea", "bool"])  # the bytes of vector and jsonb as they are
        for id_, vector, content, meta, plain in copy.rows():
            yield StoredRow(
                id_,
                None if vector is None else bytes(vector[4:]),  # behind dimension and a reserved field
                content,
                None if meta is None else bytes(meta[1:]).decode(),  # behind jsonb's version
                plain,
            )


def rows_by_id(owner: Database, table_name: str, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Some documents: `{id, embedding, content, meta, plain}`."""
    statement = SQL(_SQL["rows_by_id"]).format(table=Identifier(table_name))
    return {row["id"]: row for row in owner.read(statement, {"ids": list(ids)})}


def table_exists(owner: Database, table_name: str) -> bool:
    """Whether there is anything of that name."""
    return bool(owner.read(_SQL["table_exists"], {"table": table_name})[0]["found"])


def has_rows(owner: Database, table_name: str) -> bool:
    """Whether a table holds any document."""
    return bool(owner.read(SQL(_SQL["has_rows"]).format(table=Identifier(table_name)))[0]["found"])


class Writer:
    """
    Writes a run's batches into one table.

    :param load: Whose connection is used, and whose indexes come back at the end.
    :param model: Whose table it is.
    :param run: The run's id.
    :param alone: Whether the run made the table, so that no id is taken.
    :param bulk: Whether indexes are dropped before the first row and built afterwards.
    """

    def __init__(self, load: BulkLoad, model: EmbeddingModel, *, run: str, alone: bool, bulk: bool) -> None:
        self._load, self._model, self._run, self._alone, self._bulk = load, model, run, alone, bulk
        self._connection, self._table = load.connection, Identifier(model.table_name)

    def write(self, rows: Sequence[Row], *, part: str, position: Any, replace: Collection[str] = ()) -> int:
        """
        Write a batch and the checkpoint behind it, in one transaction.

        :param rows: Documents that are not there yet, and those to be replaced.
        :param part: Which part of the source they are of.
        :param position: Where the last of them stands, or what was passed over behind it.
        :param replace: Ids of those that are there with other contents.
        :returns: How many were inserted.
        """
        if self._bulk and rows:
            self._load.begin()
        with self._connection.transaction():
            inserted = self._written(rows, replace) if rows else 0
            checkpoint(self._connection, self._run, part=part, position=position, inserted=inserted)
        return inserted

    def _written(self, rows: Sequence[Row], replace: Collection[str]) -> int:
        if self._alone:
            # Where somebody else writes, too, only what is new goes in, and verifying tells the rest.
            with suppress(psycopg.errors.UniqueViolation), self._connection.transaction():
                return copy_rows(self._connection, self._table, rows, vector_type=self._model.vector_type)
        ordered = sorted(rows, key=lambda row: row["id"])
        new = [row for row in ordered if row["id"] not in replace]
        inserted = merge_rows(self._connection, self._table, new, policy="skip") if new else []
        old = [row for row in ordered if row["id"] in replace]
        if old:
            merge_rows(self._connection, self._table, old, policy="overwrite")
        if not self._alone:
            note_rows(self._connection, self._run, table_name=self._model.table_name, ids=inserted)
        return len(inserted)


@contextmanager
def writer(
    owner: Database, model: EmbeddingModel, *, run: str, alone: bool, bulk: bool, report: LoadReport | None = None
) -> Iterator[Writer]:
    """
    A writer for one table; at the end, indexes that it or a load before it has dropped are built.

    :param owner: The database, connected as the owner of the table, not through a pooler.
    :param report: Called while they are built.
    """
    with BulkLoad.opened(owner, model, progress=report) as load:
        yield Writer(load, model, run=run, alone=alone, bulk=bulk)
