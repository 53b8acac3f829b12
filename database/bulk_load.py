"""
Bulk loads into tables that answer no questions yet: rows first, indexes afterwards, in parallel.

What was dropped is noted in the table's comment in the transaction that drops it, and the note goes when all of it is there
again. A load that was killed therefore leaves rows, committed batch by batch, and a note: the next load, also one of no
documents, ends what it had begun. Meanwhile searches are right, but slow.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from pgvector.psycopg import register_vector
from psycopg.sql import SQL, Composable, Identifier, Literal

from database.document_rows import Policy, copy_rows, plain_name, rows_from_documents, write_rows
from database.errors import DatabaseError, GuardError, SchemaError
from database.index_build import build_index, graph_bytes
from database.models import EmbeddingModel
from database.sql import statements

if TYPE_CHECKING:
    from haystack import Document
    from psycopg import Connection

    from database.connection import Database
    from database.document_store import SynapseDocumentStore

_SQL = statements(Path(__file__).with_suffix(".sql"))
BATCH = 2000
"""Documents per transaction: what a load that is killed loses at most, and holds in memory."""

_NOTE = "synapse bulk load "


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadProgress:
    """
    How far a load is.

    :param step: `rows`, `keywords`, or the name of the index that is being built.
    :param done: Rows written, or what the build has gone through.
    :param total: Of how many, where that is known.
    """

    step: str
    done: int
    total: int | None = None


Progress = Callable[[LoadProgress], None]


def load_documents(
    owner: Database,
    target: EmbeddingModel | SynapseDocumentStore,
    documents: Iterable[Document],
    *,
    policy: Policy = "fail",
    memory: int | None = None,
    progress: Progress | None = None,
) -> int:
    """
    Write documents into a table that nobody reads yet, and build its indexes afterwards.

    Batches are committed one by one. Whatever interrupts the load, the indexes of what was written are built before the
    error is raised; after a kill, by the next load.

    :param owner: The database, connected as the owner of the table, on a connection of its own and not through a pooler.
    :param target: The model, or the store, whose table it is.
    :param documents: Read once, a batch at a time.
    :param policy: What to do with ids that exist: `fail`, `skip` or `overwrite`.
    :param memory: Bytes for each index build. By default, what it needs and the machine has, where the server is on this
        machine; the server's own setting elsewhere.
    :param progress: Called from the caller's thread after each batch and about twice a second during builds.
    :returns: How many rows were inserted or overwritten.
    :raises GuardError: If the table answers questions and has documents, or is being loaded by another process.
    :raises InvalidInputError: If PostgreSQL cannot hold a document as it is; the batches before it are written.
    :raises DuplicateRowsError: If the policy is `fail` and an id exists, or stands twice in a batch; likewise.
    """
    remaining = iter(documents)
    written = 0
    with BulkLoad.opened(owner, target, memory=memory, progress=progress) as load:
        while batch := list(islice(remaining, BATCH)):
            load.begin()
            written += load.write(batch, policy=policy)
            load.report(LoadProgress(step="rows", done=written))
    return written


def missing_indexes(database: Database) -> list[dict[str, Any]]:
    """
    Indexes that tables of registered models should have and have not, `{table_name, index_name, loading}`.

    `loading` says that a bulk load has dropped them, and is at work or was killed.
    """
    return database.read(_SQL["missing_indexes"])


class BulkLoad:
    """
    One load, on a connection of its own: what it dropped, and how that comes back.

    :param owner: The database, connected as the owner of the table.
    :param connection: Of the owner, in autocommit mode, with pgvector's types registered.
    :param target: The model, or the store, whose table it is.
    :param memory: As `load_documents` takes it.
    :param report: Called with how far it is.
    """

    def __init__(
        self,
        owner: Database,
        connection: Connection[Any],
        target: EmbeddingModel | SynapseDocumentStore,
        *,
        memory: int | None,
        report: Progress,
    ) -> None:
        self.owner, self.connection, self.memory, self.report = owner, connection, memory, report
        self.vector_type = target.vector_type
        if isinstance(target, EmbeddingModel):
            self.dimension, name = target.dimension, Identifier(target.table_name)
        else:
            self.dimension, name = target.embedding_dimension, Identifier(target.schema_name, target.table_name)
        row = connection.execute(_SQL["table_to_load"], {"table": name.as_string()}).fetchone()
        if row is None:
            raise SchemaError(
                f"A documents table {target.table_name} was expected in {owner.name}, but is not there.",
                hint="Run `python synapse.py models add`, or call create_table().",
            )
        if not (connection.execute(_SQL["lock_load"], row).fetchone() or {})["got"]:
            raise GuardError(
                f"Table {target.table_name} is being loaded by another process; only one load at a time was expected.",
                hint="Wait until it is done.",
            )
        self.facts = connection.execute(_SQL["table_to_load"], {"table": name.as_string()}).fetchone() or row
        self.table = Identifier(row["schema"], row["name"])
        comment = self.facts["comment"] or ""
        self.note: dict[str, Any] | None = (
            json.loads(comment.removeprefix(_NOTE)) if comment.startswith(_NOTE) else None
        )

    @classmethod
    @contextmanager
    def opened(
        cls,
        owner: Database,
        target: EmbeddingModel | SynapseDocumentStore,
        *,
        memory: int | None = None,
        progress: Progress | None = None,
    ) -> Iterator[BulkLoad]:
        """A load whose indexes are built at the end, also of one that fails; see `load_documents`."""
        with owner.unpooled() as connection:
            register_vector(connection)
            load = cls(owner, connection, target, memory=memory, report=progress or (lambda _: None))
            try:
                yield load
            except Exception:
                with suppress(psycopg.Error, DatabaseError):
                    load.finish()
                raise
            load.finish()

    def begin(self) -> None:
        """Drop the indexes and rest the triggers, unless this load or one before it has."""
        if self.note is not None:
            return
        with self.connection.transaction():
            self._execute("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            if self.facts["active"] and self._execute(_SQL["has_rows"]).fetchone()["found"]:
                raise GuardError(
                    f"Table {self.table.as_string()} answers questions and has documents; its indexes are not taken away.",
                    hint="Use write_documents(), or load into a new model's table and switch to it.",
                )
            self.connection.execute("SET LOCAL search_path = pg_catalog")
            indexes = self.connection.execute(_SQL["loading_indexes"], self.facts).fetchall()
            triggers = self.connection.execute(_SQL["loading_triggers"], self.facts).fetchall()
            self.note = {
                "indexes": indexes,
                "triggers": triggers,
                "forced": self.facts["forced"],
                "comment": self.facts["comment"],
            }
            self._comment(_NOTE + json.dumps(self.note))
            if self.facts["forced"]:  # COPY takes no policies; everyone but the owner they bind on
                self._execute("ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
            for trigger in triggers:
                self._execute("ALTER TABLE {table} DISABLE TRIGGER {name}", name=Identifier(trigger["name"]))
            for index in indexes:
                self._execute("DROP INDEX {name}", name=SQL(index["name"]))

    def write(self, documents: Sequence[Document], *, policy: Policy) -> int:
        """Write a batch, straight into the table if no id is taken."""
        columns: dict[str, Any] = {"dimension": self.dimension, "vector_type": self.vector_type}
        with self.connection.transaction():
            with suppress(psycopg.errors.UniqueViolation), self.connection.transaction():
                rows = rows_from_documents(documents, table=plain_name(self.table), **columns)
                return copy_rows(self.connection, self.table, rows, vector_type=self.vector_type)
            return write_rows(self.connection, self.table, documents, policy=policy, **columns)

    def finish(self) -> None:
        """Bring back what is missing; the note goes last."""
        if self.note is None:
            return
        count = self._execute(_SQL["table_size"]).fetchone()["rows"]
        for index in self.note["indexes"]:
            needed = graph_bytes(
                rows=count, dimension=self.dimension, vector_type=self.vector_type, definition=index["definition"]
            )
            build_index(
                self.connection,
                index["name"],
                index["definition"],
                needed=needed,
                memory=self.memory,
                watcher=self.owner,
                watch=partial(self._report_build, index["name"]),
            )
            self._describe(index)
        self.report(LoadProgress(step="keywords", done=0, total=count))
        with self.connection.transaction():
            for trigger in self.note["triggers"]:
                self._execute("ALTER TABLE {table} ENABLE TRIGGER {name}", name=Identifier(trigger["name"]))
            if self.note["triggers"]:
                functions = SQL(self.note["triggers"][0]["functions"])
                self._execute(_SQL["rebuild_keywords"], functions=functions)
            if self.note.get("forced"):
                self._execute("ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
            self._comment(self.note["comment"])
        self._execute("ANALYZE {table}")
        self.note = None

    def _describe(self, index: dict[str, Any]) -> None:
        """Give an index back what its definition does not have: a partial one's filter, a field's statistics."""
        name = SQL(index["name"])
        self._execute("COMMENT ON INDEX {name} IS {text}", name=name, text=Literal(index.get("comment")))
        if index.get("statistics") is not None:
            for part in self.connection.execute(_SQL["index_parts"], {"name": index["name"]}).fetchall():
                statement = "ALTER INDEX {part} ALTER COLUMN 1 SET STATISTICS {count}"
                self._execute(statement, part=SQL(part["name"]), count=Literal(index["statistics"]))

    def _report_build(self, index: str, done: int, total: int) -> None:
        self.report(LoadProgress(step=index, done=done, total=total))

    def _comment(self, text: str | None) -> None:
        self._execute("COMMENT ON TABLE {table} IS {text}", text=Literal(text))

    def _execute(self, statement: str, **parts: Composable) -> Any:
        composed = SQL(statement).format(table=self.table, **parts)
        return self.connection.execute(composed, self.facts if "%(" in statement else None)
