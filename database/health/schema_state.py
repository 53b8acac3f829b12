"""The schema's version against the program's, and whether all of it is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from database.health.finding import Finding, Kind, right, unknown
from database.health.patient import Patient
from database.online import at_work, unfinished
from database.schema import SCHEMA_VERSION, current_version
from database.sql import statements

SUBJECT = "schema"
NEEDS_SCHEMA = False
UPGRADE = "python synapse.py database upgrade"
FORGET = "DELETE FROM alembic_version"

SCHEMA_MISSING = Kind(
    code="schema_missing",
    subject=SUBJECT,
    severity="fault",
    means="The database has nothing of Synapse.",
    why="Nothing can be indexed or asked.",
    mended=f"`{UPGRADE}`",
)
SCHEMA_OLDER = Kind(
    code="schema_older",
    subject=SUBJECT,
    severity="fault",
    means="The schema is at an older version than the program's.",
    why="The program refuses to work with it.",
    mended=f"`{UPGRADE}`",
)
SCHEMA_NEWER = Kind(
    code="schema_newer",
    subject=SUBJECT,
    severity="fault",
    means="The schema is at a newer version than the program's.",
    why="The program refuses to work with it: it does not know what the newer version keeps where.",
    mended="The newer program; or, run by that one, `database downgrade`.",
)
SCHEMA_INCOMPLETE = Kind(
    code="schema_incomplete",
    subject=SUBJECT,
    severity="fault",
    means="The schema's version is noted, but parts of it are missing, or its version is noted twice or not at all.",
    why="Whatever needs them fails, often half-way through.",
    mended=f"`{FORGET}`, then `{UPGRADE}`: it makes what is missing. What a lost table held, a backup has.",
)
SCHEMA_INTERRUPTED = Kind(
    code="schema_interrupted",
    subject=SUBJECT,
    severity="warning",
    means="A change of the schema was interrupted, and nobody is at work on it.",
    why="Indexes or steps of the version that is noted may be missing.",
    mended=f"`{UPGRADE}`, which goes on where it was.",
)
KINDS = (SCHEMA_INTERRUPTED, SCHEMA_MISSING, SCHEMA_OLDER, SCHEMA_NEWER, SCHEMA_INCOMPLETE)

_SQL = statements(Path(__file__).with_suffix(".sql"))


def look_at_the_schema(patient: Patient) -> Iterator[Finding]:
    """The noted version, and then each table and function that it has."""
    noted = patient.ask(_SQL["has_version_table"])[0]["found"]
    if not noted:
        yield SCHEMA_MISSING.shell(f"{patient.name} has no schema of ours.", UPGRADE)
        return
    with patient.transaction() as connection:
        versions = connection.execute(_SQL["versions"]).fetchall()
        found = current_version(connection) or ""
        note, working = unfinished(connection), at_work(connection)
    if working:
        yield unknown(SUBJECT, f"version {found}, which is being changed right now")
    elif len(versions) != 1:
        yield _incomplete(f"One noted version was expected, but there are {len(versions)}.")
    elif found < SCHEMA_VERSION:
        yield SCHEMA_OLDER.shell(f"The schema is at version {found}; this program's is {SCHEMA_VERSION}.", UPGRADE)
    elif found > SCHEMA_VERSION:
        yield SCHEMA_NEWER.text(
            f"The schema is at version {found}; this program's is {SCHEMA_VERSION}.",
            f"Update this program to one whose schema is {found}.",
        )
    elif missing := [row["name"] for row in patient.ask(_SQL["missing"])]:
        yield _incomplete(f"Version {found} is noted, but these are missing: {', '.join(missing)}.")
    elif note:
        yield SCHEMA_INTERRUPTED.shell(
            f"The change of the schema from {note['before']} to {note['after']} was interrupted.", UPGRADE
        )
    else:
        yield right(SUBJECT, f"version {found}")


def _incomplete(what: str) -> Finding:
    return SCHEMA_INCOMPLETE.text(what, f"As the owner: {FORGET}; then {UPGRADE}, which makes what is missing.")


CHECKS = (look_at_the_schema,)
