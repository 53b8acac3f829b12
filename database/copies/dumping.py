"""Running pg_dump on a snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from psycopg.sql import Identifier

from database.copies.programs import Programs, clean_environment, failed, lines_of, running
from database.copies.progress import Counter
from database.copies.source import Snapshot

_DUMPING = 'dumping contents of table "'


def dump(
    snapshot: Snapshot,
    programs: Programs,
    path: Path,
    *,
    options: Sequence[str],
    keep_open: Sequence[int] = (),
    count: Counter | None = None,
) -> None:
    """
    Run pg_dump on everything of ours, as the snapshot shows it.

    :param path: The file or folder that it makes.
    :param options: Format, compression, jobs, or that rows stay out.
    :param keep_open: File descriptors that pg_dump inherits.
    :param count: Told the bytes of each table whose rows are begun.
    :raises DatabaseError: If pg_dump fails; half of a file may then be there.
    """
    inventory = snapshot.inventory
    schemas = [f"--schema={Identifier(name).as_string()}" for name in inventory.schemas]
    # Rows that row-level security shows to one tenant at a time pg_dump cannot read; of the others it shows an owner all.
    unseen = [table for table in inventory.tables if table.bound]
    excluded = [f"--exclude-table-data={table.identifier.as_string()}" for table in unseen]
    bound = not inventory.facts["bypasses"]
    command = [
        programs.path("pg_dump"),
        *("--snapshot", snapshot.exported, "--file", str(path), "--encoding", "UTF8", "--verbose"),
        *("--load-via-partition-root", "--lock-wait-timeout=60s"),
        *(["--enable-row-security"] if bound else []),
        *schemas,
        *excluded,
        *options,
    ]
    sizes = {table.full_name: table.size for table in inventory.tables}
    said: list[str] = []
    with (
        snapshot.programs_environment() as server,
        running(command, environment=clean_environment(server), keep_open=keep_open) as process,
    ):
        assert process.stderr is not None
        for line in lines_of(process.stderr):
            if _DUMPING in line and count is not None:
                count.add(sizes.get(line.split(_DUMPING)[1].rstrip('"'), 0))
            if "error:" in line or "detail:" in line:
                said.append(line)
        if process.wait():
            raise failed("pg_dump", said)
