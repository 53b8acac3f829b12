"""Restoring a backup into a database, and proving that it is the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from psycopg.sql import SQL, Identifier

from database.copies.archive import Archive
from database.copies.backup import shared_rows_of
from database.copies.filling import Difference, fill, in_parallel
from database.copies.manifest import Manifest, read_manifest, require_whole
from database.copies.programs import programs_for
from database.copies.progress import Counter, OnProgress, Progress, batches, silent
from database.copies.target import Place, opened, publish


@dataclass(frozen=True, kw_only=True)
class Restored:
    """
    A backup that was restored.

    :param differences: Of the copy from its manifest; it stays marked as unfinished while there are any.
    :param roles_made: Roles that the server had not.
    :param left_out: What could not be taken over: `{name, reason}`.
    :param replaced: Whether a database that held something is gone.
    """

    database: str
    manifest: Manifest
    differences: list[Difference]
    roles_made: list[str]
    left_out: list[dict[str, str]]
    replaced: bool


def restore(
    backup: Path, conninfo: str, *, replace: bool = False, jobs: int = 2, on_progress: OnProgress = silent
) -> Restored:
    """
    Restore a backup, rebuild its indexes, and compare every table with the manifest.

    :param backup: A folder or file that `back_up` made, with its manifest.
    :param conninfo: Of the owner of the database that it goes to.
    :param replace: Whether a database with contents is replaced, once the copy is whole.
    :param jobs: Tables that are filled at once.
    :raises InvalidInputError: If the backup is not whole.
    :raises GuardError: If the database holds something and is not to be replaced.
    """
    on_progress(Progress(step="reading the backup"))
    manifest = read_manifest(backup)
    require_whole(backup, manifest)
    programs = programs_for(manifest.programs, why=f"the pg_dump that wrote {backup.name}")
    archive = Archive(backup, programs)
    with opened(conninfo, manifest, replace=replace) as place:
        filled = fill(
            place,
            manifest,
            archive,
            lambda: _copy_rows(place, manifest, archive, backup, jobs=jobs, on_progress=on_progress),
            jobs=jobs,
            on_progress=on_progress,
        )
        if not filled.differences:
            publish(place, manifest)
    return Restored(
        database=place.name,
        manifest=manifest,
        differences=filled.differences,
        roles_made=place.roles_made,
        left_out=place.left_out,
        replaced=place.replaced,
    )


def _copy_rows(
    place: Place, manifest: Manifest, archive: Archive, backup: Path, *, jobs: int, on_progress: OnProgress
) -> None:
    count = Counter(on_progress, "copying", manifest.rows)

    def copy(entry: str) -> None:
        with (
            archive.rows(entry) as (statement, lines),
            place.connection() as connection,
            connection.cursor().copy(SQL(statement)) as target,  # as pg_dump wrote it
        ):
            for batch in batches(lines):
                target.write(b"".join(batch))
                count.add(len(batch))

    in_parallel(copy, archive.row_entries, jobs=jobs, interrupt=place.interrupt)
    for name, table in manifest.shared_rows.items():
        schema, _, relation = table.partition(".")
        with place.connection() as connection:
            statement = SQL("COPY {} FROM STDIN").format(Identifier(schema, relation))
            with connection.cursor().copy(statement) as target:
                for data in shared_rows_of(backup, name):
                    target.write(data)
