"""
Backups: pg_dump's archive and a manifest, of one snapshot.

A backup is made beside its place under a name that begins with a dot, and renamed when it is on disk: it is whole or not there.
What a killed run left is removed by the next: a lock, which pg_dump holds, too, tells it from one at work.
"""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from psycopg.sql import SQL

from database.copies.dumping import dumping
from database.copies.inventory import VERSION_TABLE, Sum, checksum, seen_as
from database.copies.manifest import (
    NAME,
    Manifest,
    described_file,
    described_files,
    manifest_of,
    manifest_path,
    write_manifest,
)
from database.copies.programs import programs_for
from database.copies.progress import Counter, OnProgress, silent
from database.copies.source import Snapshot, snapshot
from database.errors import GuardError, InvalidInputError

FILE_SUFFIX = ".dump"
"""A path that ends so is a single file; any other is a folder of backups."""

LAST = "last-backup.json"
"""In the home folder: when and where the last backup was made from here."""

_BACKUP = re.compile(r"synapse-\d{8}T\d{6}Z(-\d+)?")
_PARTIAL = ".partial"


@dataclass(frozen=True, kw_only=True)
class Backup:
    """
    A backup that was made.

    :param path: The file, or the folder of this backup.
    :param bytes: Its size.
    :param removed: Older ones that `keep` left no room for.
    """

    path: Path
    manifest: Manifest
    bytes: int
    removed: list[Path] = field(default_factory=list)


def back_up(
    conninfo: str, place: Path, *, jobs: int = 1, keep: int | None = None, on_progress: OnProgress = silent
) -> Backup:
    """
    Copy everything of ours into a file or folder, and describe it.

    :param conninfo: Of the owner of the schema.
    :param place: A new file ending in `.dump`, or a folder in which a new folder is made.
    :param jobs: Tables that pg_dump writes at once; only a folder takes more than one.
    :param keep: Backups that stay in the folder, this one included.
    :raises InvalidInputError: If the choices do not go together.
    :raises GuardError: If the file is there already.
    :raises DatabaseError: If the server or pg_dump fails; nothing is then there.
    """
    is_file = place.suffix == FILE_SUFFIX
    if is_file and (jobs > 1 or keep is not None):
        raise InvalidInputError(
            f"A folder was expected with --jobs or --keep, but {place} is a file.", hint="Leave out .dump."
        )
    if is_file and (place.exists() or manifest_path(place).exists()):
        raise GuardError(f"A new file was expected, but {place} is there.", hint="Name another.")
    folder = place.parent if is_file else place
    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    with snapshot(conninfo) as source, _partial(folder) as (partial, lock):
        archive = partial / place.name if is_file else partial
        manifest = _written(source, partial, archive, jobs=jobs, lock=lock, on_progress=on_progress)
        made = _in_place(partial, archive, place, manifest, taken_at=source.taken_at)
    size = sum(item["bytes"] for item in manifest.files.values())
    removed = _remove_older(folder, keep) if keep is not None else []
    return Backup(path=made, manifest=manifest, bytes=size, removed=removed)


def note_backup(home: Path, made: Backup) -> None:
    """Remember a backup in the home folder, so that others can say when the last one was."""
    home.mkdir(parents=True, exist_ok=True)
    manifest = made.manifest
    noted = {
        "at": manifest.created_at,
        "path": str(made.path.absolute()),
        "bytes": made.bytes,
        "database": manifest.database,
    }
    partial = home / f"{LAST}.partial"
    partial.write_text(json.dumps(noted) + "\n", encoding="utf-8")
    partial.replace(home / LAST)


def last_backup(home: Path) -> dict[str, Any] | None:
    """What `note_backup` remembered last: `{at, path, bytes, database}`; `None` where nothing was."""
    with suppress(OSError, ValueError):
        noted = json.loads((home / LAST).read_text(encoding="utf-8"))
        return noted if isinstance(noted, dict) else None
    return None


def backups_in(folder: Path) -> list[Path]:
    """The backups of a folder, oldest first."""
    return sorted(path for path in folder.iterdir() if _BACKUP.fullmatch(path.name) and (path / NAME).is_file())


def _written(
    source: Snapshot, partial: Path, archive: Path, *, jobs: int, lock: int, on_progress: OnProgress
) -> Manifest:
    """The archive, while this thread reads the same tables for their checksums."""
    inventory = source.inventory
    programs = programs_for(inventory.facts["major"], why=f"the server of {source.name}")
    count = Counter(on_progress, "backing up", 2 * sum(table.size for table in inventory.tables), unit="bytes")
    if archive != partial:
        if inventory.bound:
            raise InvalidInputError(
                "A folder was expected, as row-level security binds this owner and some rows stand in files of their own.",
                hint="Leave out .dump, or give the owner BYPASSRLS.",
            )
        options = ["--format=custom"]
    else:
        options = ["--format=directory", f"--jobs={jobs}"]
    inner = archive if archive != partial else partial / "archive"
    sums: dict[str, Sum] = {}
    with dumping(source, programs, inner, options=options, keep_open=[lock], count=count) as finish:
        for table in inventory.tables:
            if (table.schema, table.name) != VERSION_TABLE:
                sums[table.full_name] = checksum(source.connection, table, inventory.tenants)
            count.add(table.size)
        finish()
    manifest = manifest_of(
        inventory, database=source.name, created_at=source.taken_at, programs=programs.major, sums=sums
    )
    if archive != partial:
        files = {archive.name: described_file(archive)}
        return replace(manifest, files=files)
    for path in inner.iterdir():
        path.rename(partial / path.name)
    inner.rmdir()
    shared = dict(_shared_rows(source, partial))
    files = {name: item for name, item in described_files(partial).items() if name != "lock"}
    return replace(manifest, files=files, shared_rows=shared)


def _shared_rows(source: Snapshot, folder: Path) -> Iterator[tuple[str, str]]:
    """Rows that only each tenant sees: a file of COPY's text for each table; its name, and the table's."""
    tables = [table for table in source.inventory.tables if table.bound]
    for number, table in enumerate(tables):
        name = f"shared-{number}.copy.gz"
        with (folder / name).open("wb") as raw:
            with gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as file:
                statement = SQL("COPY (SELECT {} FROM {}) TO STDOUT").format(table.copied, table.identifier)
                for _ in seen_as(source.connection, table, source.inventory.tenants):
                    with source.connection.cursor().copy(statement) as rows:
                        for row in rows:
                            file.write(row)
            raw.flush()
            os.fsync(raw.fileno())
        yield name, table.full_name


@contextmanager
def _partial(folder: Path) -> Iterator[tuple[Path, int]]:
    """A folder to work in, with a lock that lasts as long as this process or its pg_dump; gone at the end."""
    partial = folder / f".synapse-{os.getpid()}-{os.urandom(4).hex()}{_PARTIAL}"
    partial.mkdir(mode=0o700)
    lock = os.open(partial / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield partial, lock
    finally:
        os.close(lock)
        shutil.rmtree(partial, ignore_errors=True)


def _in_place(partial: Path, archive: Path, place: Path, manifest: Manifest, *, taken_at: str) -> Path:
    """Put manifest and archive where they belong; the name that makes a backup of it comes last."""
    if archive != partial:
        written = partial / "manifest"
        write_manifest(manifest, written)
        written.rename(manifest_path(place))
        try:
            os.link(archive, place)  # and not a rename, which would replace a file that came meanwhile
        except FileExistsError as exc:
            raise GuardError(f"A new file was expected, but {place} is there.", hint="Name another.") from exc
        _synced(place.parent)
        return place
    write_manifest(manifest, partial / NAME)
    (partial / "lock").unlink()
    _synced(partial)
    name = f"synapse-{re.sub('[-:]', '', taken_at)}"
    for number in range(1, 1000):
        made = place / (name if number == 1 else f"{name}-{number}")
        if not made.exists():
            break
    partial.rename(made)
    _synced(place)
    return made


def _remove_leftovers(folder: Path) -> None:
    for partial in folder.glob(f".synapse-*{_PARTIAL}"):
        with suppress(OSError), (partial / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(partial, ignore_errors=True)


def _remove_older(folder: Path, keep: int) -> list[Path]:
    """Renamed first, so that half of a backup never looks like one."""
    removed = backups_in(folder)[: -keep or None]
    for path in removed:
        doomed = folder / f".{path.name}.removed"
        path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
    return removed


def _synced(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def shared_rows_of(backup: Path, name: str) -> Iterator[bytes]:
    """Rows of a file that `back_up` wrote beside the archive."""
    with gzip.open(backup / name, "rb") as file:
        while data := file.read(1 << 20):
            yield data
