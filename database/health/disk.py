"""Room on the server's disk, for now and for the next index build. Only this machine's disks can be seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from database.health.finding import Finding, Kind, right, unknown
from database.health.patient import Patient
from database.sql import statements

SUBJECT = "disk"
NEEDS_SCHEMA = False

DISK_FULL = Kind(
    code="disk_full",
    subject=SUBJECT,
    severity="fault",
    means="Less than 512 MB are free on the disk of the data.",
    why="PostgreSQL stops when it cannot write its log, and does not start again before there is room.",
    mended="Room: a larger disk; old logs, backups and replication slots gone.",
)
DISK_SHORT = Kind(
    code="disk_short",
    subject=SUBJECT,
    severity="warning",
    means="The next build of the largest index does not fit on the disk of the data.",
    why="A new index stands beside the old one until it is done, and its build writes as much of write-ahead log again.",
    mended="Room, before `database reindex` or an upgrade.",
)
KINDS = (DISK_FULL, DISK_SHORT)

_SQL = statements(Path(__file__).with_suffix(".sql"))


def look_at_the_disk(patient: Patient) -> Iterator[Finding]:
    """Twice the largest index: the new one and its write-ahead log."""
    free = patient.machine.free_disk
    if free is None:
        yield unknown(SUBJECT, "the server's disk is on another machine, or is not shown to this user")
        return
    largest = patient.ask(_SQL["largest_index"])
    needed = 2 * largest[0]["bytes"] if largest else 0
    if free < patient.limits.little_disk:
        yield DISK_FULL.text(
            f"{free // 2**20:,} MB are free where the data is.", "Make room; the server's log says what it writes."
        )
    elif free < needed:
        yield DISK_SHORT.text(
            f"{free // 2**20:,} MB are free, and a new {largest[0]['name']} takes about {needed // 2**20:,} MB.",
            "Make room before the next index build.",
        )
    else:
        yield right(SUBJECT, f"{free / 2**30:,.1f} GB free; the next index build takes {needed // 2**20:,} MB")


CHECKS = (look_at_the_disk,)
