"""
Changes of the schema beside programs that go on reading and writing.

Each step is a short transaction of its own and may be run again, so that an upgrade that was killed goes on where it stopped. A
lock that is not to be had within a moment is let go and asked for again later: whoever came behind it waits no longer than that.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYetError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
from psycopg.rows import DictRow
from psycopg.sql import SQL, Composed, Identifier, Literal

from database.errors import DatabaseError
from database.sql import statements

LOCK_TIMEOUT = "200ms"
PATIENCE = 600.0
"""Seconds for which a lock is asked for again and again."""

BATCH_SECONDS = 0.1
"""What a batch is to take: writers of its documents wait for as long."""

_LONGEST_PAUSE = 1.0
_POLL_SECONDS = 0.5
_NOTE = "synapse schema change "
_SQL = statements(Path(__file__).with_suffix(".sql"))

Connection = psycopg.Connection[DictRow]
Statement: TypeAlias = "str | SQL | Composed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaProgress:
    """
    How far a change of the schema is.

    :param version: The version that is being made or taken back.
    :param step: What is done.
    :param done: Rows, or pages of an index build; 0 for a step that is done at once.
    :param total: Of how many, where that is known.
    :param waiting_for: Whose transaction the step waits for, if it does.
    """

    version: str
    step: str
    done: int = 0
    total: int | None = None
    waiting_for: str | None = None


OnProgress = Callable[[SchemaProgress], None]


def silent(progress: SchemaProgress) -> None:
    """Report nothing."""


class Online:
    """
    Runs steps on a connection that holds the turn.

    :param connection: Of the owner of the schema, in autocommit mode, with the turn; see `turn`.
    :param conninfo: By which it was made.
    :param name: Where the database is, without secrets.
    :param on_progress: Called from this thread.
    """

    def __init__(self, connection: Connection, *, conninfo: str, name: str, on_progress: OnProgress) -> None:
        self.connection, self.name = connection, name
        self._conninfo, self._on_progress = conninfo, on_progress
        self.version = ""
        """The version whose steps these are."""

    def run(
        self, step: str, statement: Statement, params: dict[str, Any] | None = None, **progress: Any
    ) -> list[DictRow]:
        """
        Run a statement, or several without parameters, in one short transaction.

        :param progress: How far the work is, for `SchemaProgress`.
        :returns: The rows of the first statement; empty where it has none.
        :raises DatabaseError: If a lock was not to be had within `PATIENCE`, or the turn is gone.
        """
        self.report(step, **progress)
        deadline, pause = time.monotonic() + PATIENCE, 0.05
        while True:
            try:
                with self.connection.transaction():
                    self._begin()
                    cursor = self.connection.execute(statement, params)
                    return cursor.fetchall() if cursor.description else []
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as exc:
                who = self._in_the_way()
                if time.monotonic() > deadline:
                    raise DatabaseError(
                        f"{self.name} was expected to let go of a lock within {PATIENCE:.0f} s, but the step {step!r} of "
                        f"schema version {self.version} waits for {who}.",
                        hint="End that transaction, then run the same command again: it goes on where it stopped.",
                    ) from exc
                self.report(step, waiting_for=who, **progress)
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def files(self, step: str, paths: tuple[Path, ...]) -> None:
        """Run SQL files in one short transaction."""
        self.run(step, "\n".join(path.read_text(encoding="utf-8") for path in paths))

    def build_index(self, name: str, statement: SQL | Composed) -> None:
        """
        Build an index while others read and write, unless it is there and whole.

        :param name: Of the index, in `public`.
        :param statement: CREATE INDEX CONCURRENTLY.
        """
        while (state := self._index_state(name)) is None or not state["valid"]:
            if state is not None:  # of a build that was killed
                self.drop_index(name)
            try:
                self._concurrently(f"building {name}", statement)
            except psycopg.errors.DeadlockDetected:
                self.report(f"building {name}", waiting_for=self._in_the_way())

    def drop_index(self, name: str) -> None:
        """Drop an index of `public` while others read and write; one that is not there is no matter."""
        self._concurrently(
            f"dropping {name}", SQL("DROP INDEX CONCURRENTLY IF EXISTS public.{}").format(Identifier(name))
        )

    def has_index(self, name: str) -> bool:
        """Whether an index of `public` is there and whole."""
        return bool((self._index_state(name) or {}).get("valid"))

    def has(self, table: str) -> bool:
        """Whether a table of `public` is there."""
        row = self.connection.execute("SELECT to_regclass(%s) AS found", (f"public.{_quoted(table)}",)).fetchone()
        return row is not None and row["found"] is not None

    def report(self, step: str, **progress: Any) -> None:
        """Say how far it is."""
        self._on_progress(SchemaProgress(version=self.version, step=step, **progress))

    def models(self) -> list[DictRow]:
        """The registered models, each with its documents table."""
        return self.connection.execute(_SQL["models"]).fetchall()

    def write_note(self, *, before: str, after: str) -> None:
        """Note that a change is under way, for whoever comes after a kill."""
        self._comment(_NOTE + json.dumps({"before": before, "after": after}))

    def clear_note(self) -> None:
        """The change is done."""
        self._comment(None)

    def _comment(self, text: str | None) -> None:
        self.run("taking note", SQL("COMMENT ON TABLE public.alembic_version IS {}").format(Literal(text)))

    def _begin(self) -> None:
        row = self.connection.execute(_SQL["begin_step"], {"lock_timeout": LOCK_TIMEOUT}).fetchone()
        if row is None or not row["mine"]:
            raise DatabaseError(
                f"One connection to {self.name} was expected to hold its lock to the end, but lost it: a pooler gives each "
                "transaction another.",
                hint="Run it on a direct connection: set DATABASE_OWNER_URL to the server's own port.",
            )
        self.connection.execute(_SQL["lock_schema"])

    def _index_state(self, name: str) -> DictRow | None:
        return self.connection.execute(_SQL["index_state"], {"index": f"public.{_quoted(name)}"}).fetchone()

    def _in_the_way(self) -> str:
        row = self.connection.execute(_SQL["in_the_way"]).fetchone()
        return _transaction(row["pid"], row) if row else "nobody it knows"

    def _concurrently(self, step: str, statement: SQL | Composed) -> None:
        """Run a statement that has transactions of its own, and report how far it is from a second connection."""
        self.report(step)
        with ThreadPoolExecutor(1) as thread, _connected(self._conninfo) as watcher:
            running = thread.submit(lambda: self.connection.execute(statement))
            try:
                while True:
                    try:
                        running.result(timeout=_POLL_SECONDS)
                        return
                    except NotYetError:
                        pid = {"pid": self.connection.info.backend_pid}
                        for row in watcher.execute(_SQL["build_progress"], pid).fetchall():
                            who = _transaction(row["waits_for"], row) if row["waits_for"] else None
                            self.report(step, done=row["done"], total=row["total"] or None, waiting_for=who)
            except BaseException:  # also of who was told how far it is
                if not running.done():
                    self.connection.cancel_safe(timeout=10)
                raise


def _transaction(pid: int, row: DictRow) -> str:
    return f"process {pid} ({row['who']}, in a transaction for {row['seconds']} s)"


@contextmanager
def turn(conninfo: str, *, waiting: Callable[[str], None]) -> Iterator[Connection]:
    """
    A connection of its own that holds the turn: only one upgrade or downgrade is at work in a database.

    :param waiting: Called a few times a second while somebody else has it, with whose process that is.
    """
    with _connected(conninfo) as connection:
        connection.execute("SET statement_timeout = 0; SET lock_timeout = 0")
        while not (connection.execute(_SQL["take_turn"]).fetchone() or {})["got"]:
            holder = connection.execute(_SQL["turns"]).fetchone()
            waiting(f"process {holder['pid']}" if holder else "it to end")
            time.sleep(0.2)
        try:
            yield connection
        finally:
            with suppress(psycopg.Error):  # behind a session pooler the connection goes on without us
                connection.execute(_SQL["end_turn"])


def at_work(connection: psycopg.Connection[Any]) -> bool:
    """Whether somebody has the turn now."""
    return connection.execute(_SQL["turns"]).fetchone() is not None


def unfinished(connection: psycopg.Connection[Any]) -> dict[str, str] | None:
    """The change of the schema that is under way, or was interrupted: the versions `before` and `after`."""
    row: Any = connection.execute(_SQL["note"]).fetchone()
    text = (row["note"] if isinstance(row, dict) else row[0]) or ""
    return json.loads(text.removeprefix(_NOTE)) if text.startswith(_NOTE) else None


def _connected(conninfo: str) -> Connection:
    return psycopg.connect(
        conninfo, autocommit=True, connect_timeout=10, prepare_threshold=None, row_factory=psycopg.rows.dict_row
    )


def _quoted(name: str) -> str:
    return Identifier(name).as_string()
