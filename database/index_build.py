"""Building an index as fast as the machine can: in parallel, with the memory that its graph needs, watched meanwhile."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYetError
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.sql import Composed

from database.sql import statements

if TYPE_CHECKING:
    from database.connection import Database

_SQL = statements(Path(__file__).with_suffix(".sql"))
SPARE = 64 * 2**20
BUILD_EF_CONSTRUCTION = 96
"""Candidates per element while an HNSW index is built, at least: in memory that is cheap, and recall is better for good."""

POLL_SECONDS = 0.5
LOCK_TIMEOUT = "200ms"
LOCK_ATTEMPTS = 100

_CONTAINER = Path("/sys/fs/cgroup")
_CONNECTIONS = re.compile(r"\bm\s*=\s*'?(\d+)")
_EF_CONSTRUCTION = re.compile(r"\bef_construction\s*=\s*'?(\d+)'?")
_NAME = r'(?:"(?:[^"]|"")+"|[^\s".]+)'
_HEAD = re.compile(rf"CREATE INDEX {_NAME} ON (?:ONLY )?(?P<table>(?:{_NAME}\.)?{_NAME}) ")

Watch = Callable[[int, int], None]
"""Called with how many pages of the table are done, and of how many."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """
    What an index build may use.

    :param memory: Bytes.
    :param workers: Parallel workers beside the leader.
    """

    memory: int
    workers: int

    @property
    def settings(self) -> dict[str, str]:
        """For `build_settings`."""
        return {"memory": f"{self.memory // 1024}kB", "workers": str(self.workers)}


def graph_bytes(*, rows: int, dimension: int, vector_type: str, definition: str) -> int:
    """
    Memory that an HNSW graph takes while it is built, with some to spare.

    Of an element, pgvector 0.8 keeps the vector, 16 bytes for each of its 2 m connections on the lowest layer, some on the
    layers above, and about 300 bytes about it. A graph that outgrows the memory is built on disk, several times slower.

    :param rows: Rows of the table.
    :param definition: The index's, which names `m`; pgvector's default is 16.
    """
    found = _CONNECTIONS.search(definition)
    connections = int(found[1]) if found else 16
    element = dimension * (4 if vector_type == "vector" else 2) + 16 * 2 * connections + 300
    return int(rows * element * 1.1) + SPARE


def machine_memory() -> int:
    """Bytes that this machine, or this container, can still give."""
    import psutil

    free = int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):  # no container, or one without a limit
        limit = int((_CONTAINER / "memory.max").read_text())
        free = min(free, limit - int((_CONTAINER / "memory.current").read_text()))
    return max(free, 0)


def is_local(connection: psycopg.Connection[Any]) -> bool:
    """Whether the server's machine is this one, as far as can be told: it is reached over a socket."""
    return (connection.info.host or "").startswith("/")


def resources(
    connection: psycopg.Connection[Any], *, needed: int, memory: int | None = None, workers: int | None = None
) -> Resources:
    """
    What a build should get.

    On this machine's own server the memory is what is needed, up to half of what is free, and every core works. A server
    elsewhere keeps its own settings, as nothing is known of it.

    :param needed: Bytes that would be best, of `graph_bytes`.
    :param memory: Bytes to use instead.
    :param workers: Workers to use instead.
    """
    known = connection.execute(_SQL["server_settings"]).fetchone() or {}
    if is_local(connection):
        memory = memory or min(needed, max(machine_memory() // 2, SPARE))
        workers = max((os.cpu_count() or 1) - 1, 1) if workers is None else workers
    return Resources(
        memory=memory or int(known["memory"]), workers=int(known["workers"]) if workers is None else workers
    )


def build_index(
    connection: psycopg.Connection[Any],
    name: str,
    definition: str,
    *,
    needed: int,
    memory: int | None = None,
    watcher: Database | None = None,
    watch: Watch | None = None,
) -> None:
    """
    Build an index, unless it is there and whole: in a transaction of its own, on a partitioned table one per partition.

    :param connection: Of the owner, in autocommit mode.
    :param name: The index's, quoted, with its schema.
    :param definition: As `pg_get_indexdef` wrote it.
    :param needed: `graph_bytes`.
    :param memory: Bytes to use instead.
    :param watcher: A second way into the database, to see how far the build is.
    :param watch: Called about twice a second, from this thread.
    """
    state = connection.execute(_SQL["index_state"], {"name": name}).fetchone()
    if state is not None:
        if state["valid"]:
            return
        connection.execute(f"DROP INDEX {name}")
    transactions = list(_transactions(connection, name, definition))
    granted = resources(connection, needed=needed // max(len(transactions) - 1, 1), memory=memory)

    def look() -> None:
        if watcher is not None and watch is not None:
            for row in watcher.read(_SQL["build_progress"], {"pid": connection.info.backend_pid}):
                watch(row["done"], row["total"])

    alone = Resources(memory=granted.memory, workers=0)
    for commands in transactions:
        try:
            watched(connection, partial(_run, connection, commands, granted), look=look)
        except (psycopg.errors.DiskFull, psycopg.errors.OutOfMemory):
            # Workers share the graph in /dev/shm, of which a container has 64 MB unless told otherwise.
            watched(connection, partial(_run, connection, commands, alone), look=look)


def watched(connection: psycopg.Connection[Any], work: Callable[[], None], *, look: Callable[[], None]) -> None:
    """
    Do something on a connection in a thread, and look at it twice a second meanwhile from this one.

    :param work: Ended by cancelling its statement where this thread is interrupted, or `look` fails.
    """
    with ThreadPoolExecutor(1) as thread:
        working = thread.submit(work)
        try:
            while not _done(working):
                look()
        except BaseException:
            if not working.done():
                connection.cancel_safe(timeout=10)
            raise
    working.result()


def briefly(
    connection: psycopg.Connection[Any], statements_: Sequence[Composed], *, waiting: Callable[[], None] | None = None
) -> bool:
    """
    Run statements in one transaction that gives up soon when it must wait for a lock, and try again.

    Who comes behind somebody that waits for a lock waits, too: so nobody waits for longer than `LOCK_TIMEOUT`.

    :param waiting: Called after each attempt that failed.
    :returns: Whether the locks were to be had.
    """
    for _ in range(LOCK_ATTEMPTS):
        try:
            with connection.transaction():
                connection.execute("SELECT set_config('lock_timeout', %s, true)", [LOCK_TIMEOUT])
                for statement in statements_:
                    connection.execute(statement)
        except psycopg.errors.LockNotAvailable:
            if waiting is not None:
                waiting()
            time.sleep(POLL_SECONDS)
        else:
            return True
    return False


def better_built(definition: str) -> tuple[str, int | None]:
    """
    An HNSW index's definition with more candidates than inserts will look at, and its own number of them.

    :returns: The definition as it is, and `None`, where it is no HNSW index or has enough.
    """
    found = _EF_CONSTRUCTION.search(definition)
    if " USING hnsw " not in definition or not found or int(found[1]) >= BUILD_EF_CONSTRUCTION:
        return definition, None
    return _EF_CONSTRUCTION.sub(f"ef_construction='{BUILD_EF_CONSTRUCTION}'", definition), int(found[1])


def _transactions(connection: psycopg.Connection[Any], name: str, definition: str) -> Iterator[list[str]]:
    """
    What builds an index, a list of statements per transaction.

    On a partitioned table PostgreSQL writes a definition `ON ONLY`, which makes an index without any of its parts: these are
    built one by one, as each is given all of the memory, and then attached.
    """
    if " ON ONLY " not in definition:
        yield _commands(name, definition)
        return
    head = _HEAD.match(definition)
    assert head is not None, definition
    yield [definition]
    for part in connection.execute(_SQL["partitions"], {"table": head["table"]}).fetchall():
        whole = f"{part['schema']}.{part['index']}"
        made = f"CREATE INDEX {part['index']} ON {part['schema']}.{part['name']} {definition[head.end() :]}"
        yield [*_commands(whole, made), f"ALTER INDEX {name} ATTACH PARTITION {whole}"]


def _commands(name: str, definition: str) -> list[str]:
    better, own = better_built(definition)
    return [definition] if own is None else [better, f"ALTER INDEX {name} SET (ef_construction = {own})"]


def _run(connection: psycopg.Connection[Any], commands: Sequence[str], granted: Resources) -> None:
    with connection.transaction():
        connection.execute(_SQL["build_settings"], granted.settings | {"local": True})
        for command in commands:
            connection.execute(command)


def _done(building: Future[None]) -> bool:
    with suppress(NotYetError):
        building.exception(timeout=POLL_SECONDS)
        return True
    return False
