"""
Moving a database to another server, without a file between: between hosts, and between PostgreSQL's major versions.

Rows stream from one snapshot of the source, which is only read. What is written there meanwhile is not in the copy, and is named:
each table's checksum is taken again at the end.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.sql import SQL, Identifier

from database.connection import Database, wrapped
from database.copies.archive import Archive
from database.copies.dumping import dumping
from database.copies.filling import Difference, differences, fill, in_parallel
from database.copies.inventory import VERSION_TABLE, Inventory, Sum, Table, checksum, facts_of, seen_as
from database.copies.manifest import Manifest, manifest_of
from database.copies.parity import Parity, compare_searches
from database.copies.programs import Programs, programs_for
from database.copies.progress import Counter, OnProgress, batches, silent
from database.copies.source import Snapshot, snapshot
from database.copies.target import Place, examined, opened, publish, require_replaceable
from database.errors import DatabaseError, GuardError, SynapseError

QUERIES = 20
"""Vectors per documents table whose searches are compared."""


@dataclass(kw_only=True)
class Moved:
    """
    A database that was moved, or would be.

    :param source: Where it was, without secrets; `before` are its rows and checksums.
    :param target: Where it is, and `target_facts` its versions.
    :param found: Rows and checksums that were read back.
    :param differences: Of the copy from the snapshot; with any, it stays marked as unfinished.
    :param changed: Tables of the source that were written to meanwhile: that is not in the copy.
    :param searches: By table, how far searches agree.
    :param roles_made: Roles that the server had not.
    :param left_out: What could not be taken over: `{name, reason}`.
    :param replaced: Whether a database that held something is gone.
    :param problems: What would stop it, of a dry run.
    :param seconds: By step.
    """

    source: str
    target: str
    manifest: Manifest
    target_facts: dict[str, Any] = field(default_factory=dict)
    found: dict[str, Sum] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    changed: list[Difference] = field(default_factory=list)
    searches: dict[str, Parity] = field(default_factory=dict)
    roles_made: list[str] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)
    replaced: bool = False
    problems: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def move(
    source_conninfo: str,
    target_conninfo: str,
    *,
    freeze: bool = False,
    replace: bool = False,
    jobs: int = 2,
    queries: int = QUERIES,
    on_progress: OnProgress = silent,
) -> Moved:
    """
    Copy everything of ours to another database, compare every table and searches, and look whether the source has changed.

    :param source_conninfo: Of the owner there; it is only read.
    :param target_conninfo: Of the owner of an empty database.
    :param freeze: Whether writers of the source wait until the end.
    :param replace: Whether a target with contents is replaced, once the copy is whole.
    :param jobs: Tables that are copied at once.
    :raises GuardError: If both are the same database, or the target holds something and is not to be replaced.
    """
    started = time.monotonic()
    with snapshot(source_conninfo, frozen=freeze) as source:
        facts = target_facts(target_conninfo)
        _require_other(source, facts)
        manifest = _described(source, facts["major"], jobs=jobs, on_progress=on_progress)
        moved = Moved(source=source.name, target=Database(target_conninfo).name, manifest=manifest, target_facts=facts)
        moved.seconds["reading"] = time.monotonic() - started
        with opened(target_conninfo, manifest, replace=replace) as place, _schema_archive(source, manifest) as archive:
            _fill(moved, source, place, archive, jobs=jobs, on_progress=on_progress)
            moved.seconds["copying"] = time.monotonic() - started - moved.seconds["reading"]
            with source.reader() as reader, place.connection() as copy, copy.transaction():
                moved.searches = compare_searches(
                    reader, copy, source.inventory, queries=queries, on_progress=on_progress
                )
            if not moved.differences and all(parity.passed for parity in moved.searches.values()):
                publish(place, manifest)
        moved.roles_made, moved.left_out, moved.replaced = place.roles_made, place.left_out, place.replaced
        moved.target_facts = target_facts(target_conninfo if moved.replaced else place.conninfo)
    with snapshot(source_conninfo) as afterwards:
        moved.changed = differences(
            manifest.tables, sums_of(afterwards, jobs=jobs, on_progress=on_progress, step="reading again")
        )
    moved.seconds["all"] = time.monotonic() - started
    return moved


def rehearse(
    source_conninfo: str, target_conninfo: str, *, replace: bool = False, on_progress: OnProgress = silent
) -> Moved:
    """
    Look at both sides, read the source, and write nothing.

    :returns: With `problems`: what would stop the move.
    """
    with snapshot(source_conninfo) as source:
        facts = target_facts(target_conninfo)
        manifest = _described(source, facts["major"], jobs=1, on_progress=on_progress)
        moved = Moved(source=source.name, target=Database(target_conninfo).name, manifest=manifest, target_facts=facts)
        try:
            _require_other(source, facts)
            with psycopg.connect(target_conninfo, autocommit=True, row_factory=dict_row) as connection:
                if examined(connection, manifest, name=moved.target) == "occupied":
                    require_replaceable(moved.target, replace=replace)
        except SynapseError as exc:
            moved.problems.append(exc.message.rstrip("."))
    return moved


def sums_of(source: Snapshot, *, jobs: int, on_progress: OnProgress, step: str) -> dict[str, Sum]:
    """Rows and checksum of each table of a snapshot, by `schema.name`; the schema's version is no row that is compared."""
    tables = [table for table in source.inventory.tables if (table.schema, table.name) != VERSION_TABLE]
    count = Counter(on_progress, step, sum(table.size for table in tables), unit="bytes")
    sums: dict[str, Sum] = {}

    def read(table: Table) -> None:
        with source.reader() as reader:
            sums[table.full_name] = checksum(reader, table, source.inventory.tenants)
        count.add(table.size)

    in_parallel(read, sorted(tables, key=lambda table: -table.size), jobs=jobs, interrupt=source.interrupt)
    return {table.full_name: sums[table.full_name] for table in tables}


def _described(source: Snapshot, target_major: int, *, jobs: int, on_progress: OnProgress) -> Manifest:
    programs = _programs(source, target_major)
    return manifest_of(
        source.inventory,
        database=source.name,
        created_at=source.taken_at,
        programs=programs.major,
        sums=sums_of(source, jobs=jobs, on_progress=on_progress, step="reading"),
    )


def _programs(source: Snapshot, target_major: int) -> Programs:
    """A later server's own pg_dump, as PostgreSQL advises, or else the source's."""
    major = source.inventory.facts["major"]
    with suppress(DatabaseError):
        return programs_for(max(major, target_major), why=f"the server of {source.name}")
    return programs_for(major, why=f"the server of {source.name}")


def _require_other(source: Snapshot, target: dict[str, Any]) -> None:
    if source.inventory.facts["identity"] == target["identity"]:
        raise GuardError("Two databases were expected, but --from and --to name the same one.")


def target_facts(conninfo: str) -> dict[str, Any]:
    """
    Versions of a server, and what tells it from others.

    :raises DatabaseUnavailableError: If there is no connection.
    """
    database = Database(conninfo)
    try:
        with psycopg.connect(database.conninfo) as connection:
            return facts_of(connection)
    except psycopg.Error as exc:
        raise wrapped(exc, name=database.name) from exc


@contextmanager
def _schema_archive(source: Snapshot, manifest: Manifest) -> Iterator[Archive]:
    with tempfile.TemporaryDirectory(prefix="synapse-") as folder:
        path, programs = Path(folder) / "schema.dump", programs_for(manifest.programs, why="pg_dump")
        with dumping(source, programs, path, options=["--format=custom", "--schema-only"]) as finish:
            finish()
        yield Archive(path, programs)


def _fill(
    moved: Moved, source: Snapshot, place: Place, archive: Archive, *, jobs: int, on_progress: OnProgress
) -> None:
    def interrupt() -> None:
        source.interrupt()
        place.interrupt()

    def stream() -> None:
        count = Counter(on_progress, "copying", moved.manifest.rows)
        tables = [table for table in source.inventory.tables if (table.schema, table.name) != VERSION_TABLE]
        in_parallel(
            lambda table: _copy(source, place, table, count),
            sorted(tables, key=lambda table: -table.size),
            jobs=jobs,
            interrupt=interrupt,
        )
        _set_sequences(place, source.inventory)

    filled = fill(place, moved.manifest, archive, stream, jobs=jobs, on_progress=on_progress)
    moved.found, moved.differences = filled.found, filled.differences


def _copy(source: Snapshot, place: Place, table: Table, count: Counter) -> None:
    """A table's rows as text, which any version reads as any other wrote it."""
    out = SQL("COPY (SELECT {} FROM {}) TO STDOUT").format(table.copied, table.identifier)
    into = SQL("COPY {} ({}) FROM STDIN").format(table.identifier, table.copied)
    with source.reader() as reader, place.connection() as connection:
        for _ in seen_as(reader, table, source.inventory.tenants):
            with reader.cursor().copy(out) as rows, connection.cursor().copy(into) as target:
                for batch in batches(rows):
                    target.write(b"".join(batch))
                    count.add(len(batch))


def _set_sequences(place: Place, inventory: Inventory) -> None:
    with place.connection() as connection:
        for sequence in inventory.sequences:
            name = Identifier(sequence["schema"], sequence["name"]).as_string()
            given = sequence["last_value"] is not None
            value = sequence["last_value"] if given else sequence["start_value"]
            connection.execute("SELECT setval(%s::regclass, %s, %s)", (name, value, given))
