"""pgvector: whether it is there, of which version, and what is known to be wrong with that one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from database.health.finding import Finding, Kind, right
from database.health.patient import Patient
from database.health.releases import HNSW_FAULTS, IVFFLAT_FAULTS, known_faults, version
from database.schema import MINIMUM_PGVECTOR
from database.sql import statements

SUBJECT = "pgvector"
NEEDS_SCHEMA = False
_MINIMUM = ".".join(map(str, MINIMUM_PGVECTOR))
_UPDATE = "ALTER EXTENSION vector UPDATE"

EXTENSION_MISSING = Kind(
    code="extension_missing",
    subject=SUBJECT,
    severity="fault",
    means="The extension vector is not installed in this database.",
    why="Embeddings are kept and compared by it.",
    mended="`CREATE EXTENSION vector`; where the server does not have it, its package first.",
)
EXTENSION_TOO_OLD = Kind(
    code="extension_too_old",
    subject=SUBJECT,
    severity="fault",
    means=f"pgvector is older than {_MINIMUM}.",
    why="Searches for more than 1,000 documents go on along the index by iterative scans, which 0.8.0 brought.",
    mended="The server's package of pgvector, then `ALTER EXTENSION vector UPDATE`.",
)
EXTENSION_BEHIND = Kind(
    code="extension_behind",
    subject=SUBJECT,
    severity="warning",
    means="The server has a newer pgvector than this database uses.",
    why="The library is the newer one already, but its new functions, operators and mended costs are not there.",
    mended="`ALTER EXTENSION vector UPDATE`, in every database.",
)
PGVECTOR_HNSW_FAULTS = Kind(
    code="pgvector_hnsw_faults",
    subject=SUBJECT,
    severity="warning",
    means="The server's pgvector is older than 0.8.4 and has known faults with HNSW indexes.",
    why="An index that VACUUM has corrupted does not find what is there.",
    mended="The server's package of pgvector, then `ALTER EXTENSION vector UPDATE`; after 0.8.3, a new build of HNSW indexes.",
)
PGVECTOR_IVFFLAT_FAULTS = Kind(
    code="pgvector_ivfflat_faults",
    subject=SUBJECT,
    severity="advice",
    means="There is an IVFFlat index, and the server's pgvector is older than 0.8.7.",
    why="Building such an index may write beyond a buffer.",
    mended="The server's package of pgvector, then `ALTER EXTENSION vector UPDATE`; or an HNSW index in its place.",
)
EXTENSION_ELSEWHERE = Kind(
    code="extension_elsewhere",
    subject=SUBJECT,
    severity="fault",
    means="pgvector is in a schema that the program's transactions do not look into.",
    why="Type and operators are not found: every search fails.",
    mended="`ALTER EXTENSION vector SET SCHEMA public`.",
)
KINDS = (
    EXTENSION_MISSING,
    EXTENSION_TOO_OLD,
    EXTENSION_BEHIND,
    PGVECTOR_HNSW_FAULTS,
    PGVECTOR_IVFFLAT_FAULTS,
    EXTENSION_ELSEWHERE,
)

_SQL = statements(Path(__file__).with_suffix(".sql"))


def look_at_versions(patient: Patient) -> Iterator[Finding]:
    """What is installed, what would be, and what later versions have mended."""
    row = patient.ask(_SQL["extension"])[0]
    installed, available = row["installed"], row["available"]
    if installed is None:
        what = f"The extension vector was expected in {patient.name}, but is not installed."
        if available is None:
            yield EXTENSION_MISSING.text(
                what, "Install pgvector on the server, or use the image pgvector/pgvector:pg18."
            )
        else:
            yield EXTENSION_MISSING.sql(what, "CREATE EXTENSION IF NOT EXISTS vector", fixable=True)
        return
    library = max(installed, available or installed, key=version)
    behind = version(installed) < version(library)
    if version(installed) < MINIMUM_PGVECTOR:
        what = f"pgvector {_MINIMUM} or later was expected, but {installed} is installed."
        if version(library) < MINIMUM_PGVECTOR:
            yield EXTENSION_TOO_OLD.text(what, f"Update pgvector on the server, then run {_UPDATE}.")
        else:
            yield EXTENSION_TOO_OLD.sql(what, _UPDATE, fixable=True)
    elif behind:
        what = f"pgvector {installed} is installed, and {library} is on the server."
        yield EXTENSION_BEHIND.sql(what, _UPDATE, fixable=True)
    if faults := known_faults(library, HNSW_FAULTS):
        yield PGVECTOR_HNSW_FAULTS.text(
            f"pgvector {library} has known faults: {'; '.join(faults)}.",
            f"Update pgvector on the server to 0.8.4 or later, then run {_UPDATE}.",
        )
    if row["ivfflat"] and (faults := known_faults(library, IVFFLAT_FAULTS)):
        yield PGVECTOR_IVFFLAT_FAULTS.text(
            f"pgvector {library} has a known fault, and there are {row['ivfflat']} IVFFlat indexes: {'; '.join(faults)}.",
            f"Update pgvector on the server to 0.8.7 or later, then run {_UPDATE}.",
        )
    yield right(SUBJECT, installed)


def look_where_it_is(patient: Patient) -> Iterator[Finding]:
    """Whether the program's transactions find the type without naming its schema."""
    for tenant in patient.tenants:
        row = patient.ask(_SQL["place"], tenant=tenant if patient.has_tenant(tenant) else None)
        if row and not row[0]["found"]:
            yield EXTENSION_ELSEWHERE.sql(
                f"The type vector is in schema {row[0]['schema']}, where {patient.name} does not look.",
                "ALTER EXTENSION vector SET SCHEMA public",
            )
            return


CHECKS = (look_at_versions, look_where_it_is)
