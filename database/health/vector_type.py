"""The vector type, tried for real: kept, indexed, compared, in a table that is gone at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg

from database.health.finding import Finding, Kind, right, unknown
from database.health.patient import Patient
from database.sql import statements

SUBJECT = "vector type"
NEEDS_SCHEMA = False

VECTOR_TYPE_BROKEN = Kind(
    code="vector_type_broken",
    subject=SUBJECT,
    severity="fault",
    means="Vectors cannot be kept, indexed or compared, though pgvector is installed.",
    why="Neither indexing nor searching works.",
    mended="As the server's own words say; rights on the type come back with `GRANT USAGE ON TYPE vector TO PUBLIC`.",
)
KINDS = (VECTOR_TYPE_BROKEN,)

_SQL = statements(Path(__file__).with_suffix(".sql"))
_EXPECTED = [1, 3, 2]
_STEPS = ("create", "insert", "index", "settings")


def look_at_vectors(patient: Patient) -> Iterator[Finding]:
    """Three vectors come back by their cosine distance, through an HNSW index."""
    if not patient.ask(_SQL["installed"]):
        return
    try:
        with patient.transaction(
            tenant=next((one for one in patient.tenants if patient.has_tenant(one)), None)
        ) as connection:
            for step in _STEPS:
                connection.execute(_SQL[step])
            found = [row["id"] for row in connection.execute(_SQL["nearest"]).fetchall()]
    except (psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.QueryCanceled) as exc:
        yield unknown(SUBJECT, f"not tried: {patient.said(exc)}")
    except psycopg.errors.InsufficientPrivilege as exc:
        if "type" not in str(exc).splitlines()[0]:
            yield unknown(SUBJECT, f"not tried: {patient.said(exc)}")
            return
        yield VECTOR_TYPE_BROKEN.sql(
            f"The program may not use the type vector: {patient.said(exc)}",
            f"GRANT USAGE ON TYPE {patient.ask(_SQL['installed'])[0]['type']} TO PUBLIC",
            fixable=True,
        )
    except psycopg.errors.UndefinedObject as exc:
        if patient.ask(_SQL["installed"])[0]["reachable"]:
            yield _broken(patient.said(exc))
    except psycopg.Error as exc:
        yield _broken(patient.said(exc))
    else:
        if found == _EXPECTED:
            yield right(SUBJECT, "created, filled, indexed and ordered by <=>")
        else:
            yield _broken(f"ordered by <=>, {_EXPECTED} was expected, but {found} came back.")


def _broken(words: str) -> Finding:
    return VECTOR_TYPE_BROKEN.text(
        f"A table with vectors was tried: {words}",
        "Install pgvector's package on the server again; if the extension's objects are gone, restore a backup into a new database.",
    )


CHECKS = (look_at_vectors,)
