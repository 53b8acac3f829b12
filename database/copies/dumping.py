"""Running pg_dump on a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from psycopg.sql import Identifier

from database.copies.programs import Programs, clean_environment, failed, lines_of, running
from database.copies.progress import Counter
from database.copies.source import Snapshot

_DUMPING = 'dumping contents of table "'


@contextmanager
def dumping(
    snapshot: Snapshot,
    programs: Programs,
    path: Path,
    *,
    options: Sequence[str],
    keep_open: Sequence[int] = (),
    count: Counter | None = None,
) -> Iterator[Callable[[], None]]:
    """
    Run pg_dump on everything of ours, as the snapshot shows it, beside what the block does; it ends with the block.

    :param path: The file or folder that it makes.
    :param options: Format, compression, jobs, or that rows stay out.
    :param keep_open: File descriptors that pg_dump inherits.
    :param count: Told the bytes of each table whose rows are begun.
    :returns: A function that waits for its end, and raises a `DatabaseError` if it failed; half of a file may then be there.
    """
    sizes = {table.full_name: table.size for table in snapshot.inventory.tables}
    with (
        snapshot.programs_environment() as server,
        running(
            _command(snapshot, programs, path, options), environment=clean_environment(server), keep_open=keep_open
        ) as process,
        ThreadPoolExecutor(1) as thread,
    ):
        assert process.stderr is not None
        reading = thread.submit(_errors_of, process.stderr, sizes, count)

        def finish() -> None:
            said = reading.result()
            if process.wait():
                raise failed("pg_dump", said)

        try:
            yield finish
        except BaseException:
            process.terminate()
            raise


def _command(snapshot: Snapshot, programs: Programs, path: Path, options: Sequence[str]) -> list[str]:
    inventory = snapshot.inventory
    # Rows that row-level security shows to one tenant at a time pg_dump cannot read; of the others it shows an owner all.
    unseen = [table for table in inventory.tables if table.bound]
    return [
        programs.path("pg_dump"),
        *("--snapshot", snapshot.exported, "--file", str(path), "--encoding", "UTF8", "--verbose"),
        *("--load-via-partition-root", "--lock-wait-timeout=60s"),
        *([] if inventory.facts["bypasses"] else ["--enable-row-security"]),
        *(f"--schema={Identifier(name).as_string()}" for name in inventory.schemas),
        *(f"--exclude-table-data={table.identifier.as_string()}" for table in unseen),
        *options,
    ]


def _errors_of(output: IO[bytes], sizes: Mapping[str, int], count: Counter | None) -> list[str]:
    """What it says that is no progress; its progress is counted."""
    said = []
    for line in lines_of(output):
        if _DUMPING in line and count is not None:
            count.add(sizes.get(line.split(_DUMPING)[1].rstrip('"'), 0))
        if "error:" in line or "detail:" in line:
            said.append(line)
    return said
