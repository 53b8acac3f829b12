"""Building an index as fast as the machine can: in parallel, with the memory that its graph needs, watched meanwhile."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYetError
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from database.sql import statements

if TYPE_CHECKING:
    from database.connection import Database

_SQL = statements(Path(__file__).with_suffix(".sql"))
SPARE = 64 * 2**20
BUILD_EF_CONSTRUCTION = 96
"""Candidates per element while an HNSW index is built, at least: in memory that is cheap, and recall is better for good."""

POLL_SECONDS = 0.5

_CONTAINER = Path("/sys/fs/cgroup")
_CONNECTIONS = re.compile(r"\bm\s*=\s*'?(\d+)")
_EF_CONSTRUCTION = re.compile(r"\bef_construction\s*=\s*'?(\d+)'?")

Watch = Callable[[int, int], None]
"""Called with how many pages of the table are done, and of how many."""


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
    Build an index in a transaction of its own, unless it is there and whole.

    On this machine's own server the memory is what the graph needs, up to half of what is free, and every core works. A server
    elsewhere keeps its own settings, as nothing is known of it.

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
    known = connection.execute(_SQL["server_settings"]).fetchone() or {}
    workers = int(known["workers"])
    if (connection.info.host or "").startswith("/"):  # a socket: the server's machine is this one
        memory = memory or min(needed, max(machine_memory() // 2, SPARE))
        workers = max((os.cpu_count() or 1) - 1, 1)
    memory = memory or int(known["memory"])
    commands = _commands(name, definition)
    try:
        _run(connection, commands, memory=memory, workers=workers, watcher=watcher, watch=watch)
    except (psycopg.errors.DiskFull, psycopg.errors.OutOfMemory):
        # Workers share the graph in /dev/shm, of which a container has 64 MB unless told otherwise.
        _run(connection, commands, memory=memory, workers=0, watcher=watcher, watch=watch)


def _commands(name: str, definition: str) -> list[str]:
    """Build an HNSW index with more candidates than inserts will look at, then give it its own setting back."""
    found = _EF_CONSTRUCTION.search(definition)
    if " USING hnsw " not in definition or not found or int(found[1]) >= BUILD_EF_CONSTRUCTION:
        return [definition]
    better = _EF_CONSTRUCTION.sub(f"ef_construction='{BUILD_EF_CONSTRUCTION}'", definition)
    return [better, f"ALTER INDEX {name} SET (ef_construction = {found[1]})"]


def _run(
    connection: psycopg.Connection[Any],
    commands: Sequence[str],
    *,
    memory: int,
    workers: int,
    watcher: Database | None,
    watch: Watch | None,
) -> None:
    def work() -> None:
        with connection.transaction():
            settings = {"memory": f"{memory // 1024}kB", "workers": str(workers)}
            connection.execute(_SQL["build_settings"], settings)
            for command in commands:
                connection.execute(command)

    with ThreadPoolExecutor(1) as thread:
        building = thread.submit(work)
        try:
            while not _done(building):
                if watcher is not None and watch is not None:
                    for row in watcher.read(_SQL["build_progress"], {"pid": connection.info.backend_pid}):
                        watch(row["done"], row["total"])
        except BaseException:
            if not building.done():
                connection.cancel_safe(timeout=10)
            raise
    building.result()


def _done(building: Future[None]) -> bool:
    with suppress(NotYetError):
        building.exception(timeout=POLL_SECONDS)
        return True
    return False
