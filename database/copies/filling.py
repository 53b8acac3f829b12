"""
Filling a database from an archive: tables, rows, indexes, triggers, policies, rights; and the proof that the rows are the same.

Rows come before indexes and triggers, so that indexes are built at once and the triggers that keep the keyword tables do nothing,
and before row-level security, which would bind an owner who is no superuser.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any, TypeVar

import psycopg
from psycopg.sql import SQL

from database.connection import Database
from database.copies.archive import Archive, Statement
from database.copies.inventory import Sum, Table, checksum, take_inventory
from database.copies.manifest import Manifest
from database.copies.progress import Counter, OnProgress, Progress
from database.copies.target import Place, close_to_others, prepare
from database.index_build import build_index

_BUILT = ("CONSTRAINT", "INDEX")
_HNSW = re.compile(r"^CREATE (?:UNIQUE )?INDEX (?P<name>.+) ON (?!ONLY )(?P<table>.+) USING hnsw ")
_NO_ROLE = re.compile(r'role "(.*)" does not exist')
BUILD_MEMORY = 256 * 2**20
"""Bytes of maintenance_work_mem for an index, at least."""

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Difference:
    """
    A table whose copy is not the same.

    :param expected: Its rows and checksum in the source; `None` where the source has no such table.
    :param found: In the copy; `None` where it has none.
    """

    table: str
    expected: Sum | None
    found: Sum | None

    def __str__(self) -> str:
        if self.expected is None or self.found is None:
            return f"{self.table} is not in {'the copy' if self.found is None else 'the source'}"
        if self.expected.rows != self.found.rows:
            return f"{self.table} has {self.found.rows:,} rows, {self.expected.rows:,} were expected"
        return f"{self.table} has other contents: checksum {self.found.checksum}, expected {self.expected.checksum}"


@dataclass(kw_only=True)
class Filled:
    """
    A database that was filled.

    :param found: Rows and checksum of each table, read back.
    :param differences: From what was expected.
    """

    found: dict[str, Sum] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)


def fill(
    place: Place,
    manifest: Manifest,
    archive: Archive,
    copy_rows: Callable[[], None],
    *,
    jobs: int,
    on_progress: OnProgress,
) -> Filled:
    """
    Make everything that an archive describes, and compare the rows with the manifest.

    :param copy_rows: Puts the rows into the tables.
    :param jobs: Connections that work at once.
    :returns: What was read back; the place stays unfinished until `publish`.
    """
    on_progress(Progress(step="making tables"))
    prepare(place, manifest, archive.before_rows(again=place.state == "unfinished"))
    with place.connection() as connection:
        views = [row["name"] for row in connection.execute(_VIEWS).fetchall()]
        close_to_others(connection, [*manifest.tables, "public.alembic_version", *views])
    copy_rows()
    _finish(place, manifest, archive, jobs=jobs, on_progress=on_progress)
    return verify(place, manifest, jobs=jobs, on_progress=on_progress)


_VIEWS = "SELECT schemaname || '.' || viewname AS name FROM pg_views WHERE schemaname = 'public' AND starts_with(viewname, 'synapse_')"


def _finish(place: Place, manifest: Manifest, archive: Archive, *, jobs: int, on_progress: OnProgress) -> None:
    """
    Indexes, several at once but those with a graph, each of which takes all cores; then the rest in its order.

    The index of a table in parts (`ON ONLY`) is empty until its parts' indexes are attached, which is of the rest.
    """
    statements = archive.after_rows()
    graphs = [one for one in statements if one.kind == "INDEX" and _HNSW.match(one.sql)]
    others = [one for one in statements if one.kind in _BUILT and one not in graphs]
    done = Counter(on_progress, "building indexes", len(graphs) + len(others), unit="indexes")

    def build(statement: Statement) -> None:
        with place.connection() as connection:
            connection.execute(
                "SELECT set_config('maintenance_work_mem', greatest(setting::bigint, %s)::text, false)"
                " FROM pg_settings WHERE name = 'maintenance_work_mem'",
                (BUILD_MEMORY // 1024,),
            )
            connection.execute(statement.sql)
        done.add(1)

    in_parallel(build, others, jobs=jobs, interrupt=place.interrupt)
    watcher = Database(place.conninfo)
    try:
        for graph in graphs:
            _build_graph(place, manifest, graph, watcher=watcher, on_progress=on_progress)
            done.add(1)
    finally:
        watcher.close()
    with place.connection() as connection:
        for statement in [
            *archive.sequences(),
            *(one for one in statements if one.kind not in _BUILT),
            *archive.rights(),
        ]:
            _run_for_known_roles(connection, statement, place)
    on_progress(Progress(step="collecting statistics"))
    with place.connection() as connection:
        for name in _tables_of(connection):
            connection.execute(SQL("VACUUM (ANALYZE) {}").format(name))


def _tables_of(connection: psycopg.Connection[Any]) -> list[Any]:
    with connection.transaction():
        return [table.identifier for table in take_inventory(connection).tables]


def _build_graph(
    place: Place, manifest: Manifest, statement: Statement, *, watcher: Database, on_progress: OnProgress
) -> None:
    """An HNSW index with the memory that its graph needs."""
    found = _HNSW.match(statement.sql)
    assert found is not None
    table = found["table"].replace('"', "")
    # Of an element, the graph keeps its vector, which stands in the table, too, and less than 1 KB of links.
    rows = manifest.tables[table].rows if table in manifest.tables else 0
    size = manifest.sizes.get(table, max(manifest.sizes.values()))  # of a part of a table, only the whole is known

    def watch(done: int, total: int) -> None:
        on_progress(Progress(step=f"building {statement.name}", done=done, total=total, unit="pages"))

    with place.connection() as connection:
        build_index(
            connection,
            f"{statement.schema}.{found['name']}",
            statement.sql.rstrip(";"),
            needed=2 * size + 1024 * rows + BUILD_MEMORY,
            watcher=watcher,
            watch=watch,
        )


def _run_for_known_roles(connection: psycopg.Connection[Any], statement: Statement, place: Place) -> None:
    """Run what gives rights to roles; where the server has no such role, leave it out and say so: nobody gets more for it."""
    commands = statement.sql.split(";\n") if statement.kind.endswith("ACL") else [statement.sql]
    for command in commands:
        try:
            connection.execute(command)
        except psycopg.errors.UndefinedObject as exc:
            missing = _NO_ROLE.search(str(exc))
            if missing is None:
                raise
            place.left_out.append(
                {"name": f"{statement.kind.lower()} {statement.name}", "reason": f"there is no role {missing[1]}"}
            )


def verify(place: Place, manifest: Manifest, *, jobs: int, on_progress: OnProgress) -> Filled:
    """Read every table back and compare rows and checksum with the manifest."""
    with place.connection() as connection, connection.transaction():
        inventory = take_inventory(connection)
    tables = [table for table in inventory.tables if table.full_name in manifest.tables]
    filled = Filled()
    count = Counter(on_progress, "comparing", manifest.rows)

    def compare(table: Table) -> None:
        with place.connection() as connection, connection.transaction():
            filled.found[table.full_name] = checksum(connection, table, manifest.tenants)
        count.add(filled.found[table.full_name].rows)

    in_parallel(compare, sorted(tables, key=lambda table: -table.size), jobs=jobs, interrupt=place.interrupt)
    filled.differences = differences(manifest.tables, filled.found)
    return filled


def differences(expected: dict[str, Sum], found: dict[str, Sum]) -> list[Difference]:
    """Tables that have other rows, or are on one side alone, by name."""
    return [
        Difference(table=name, expected=expected.get(name), found=found.get(name))
        for name in sorted({*expected, *found})
        if expected.get(name) != found.get(name)
    ]


def in_parallel(
    work: Callable[[Item], None], items: Iterable[Item], *, jobs: int, interrupt: Callable[[], None]
) -> None:
    """
    Work on each item, several at once, and end with the first error.

    :param interrupt: Called with the first error, or Ctrl-C, so that what others are at ends soon.
    """
    with ThreadPoolExecutor(jobs) as threads:
        futures = [threads.submit(work, item) for item in items]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            for future in futures:
                future.cancel()
            interrupt()
            raise
