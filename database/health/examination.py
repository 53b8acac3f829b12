"""
The examination: every subject in turn.

One check that fails never ends the others: what could not be looked at is said, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType

import psycopg

from database.errors import SynapseError
from database.health import (
    access,
    certificate,
    connecting,
    disk,
    extension,
    fields,
    files,
    indexes,
    keywords,
    maintenance,
    migrations,
    models,
    pooling,
    replicas,
    schema_state,
    server,
    server_settings,
    sources,
    vector_type,
)
from database.health.finding import Finding, Kind, unknown
from database.health.patient import Patient

SUBJECTS: tuple[ModuleType, ...] = (
    connecting,
    pooling,
    server,
    extension,
    vector_type,
    schema_state,
    models,
    indexes,
    fields,
    keywords,
    maintenance,
    access,
    server_settings,
    disk,
    sources,
    certificate,
    migrations,
    replicas,
    files,
)
"""Each has its name, its kinds of findings, its checks, and says whether they need our schema."""

KINDS: dict[str, Kind] = {kind.code: kind for module in SUBJECTS for kind in module.KINDS}
"""Every finding that there is, by its code."""

_STOPPING = {"pooler_statement", "server_unsupported"}
"""After these, nothing else can be asked."""

_NO_SCHEMA = {"extension_missing", "schema_missing", "schema_older", "schema_newer", "schema_incomplete"}
"""After these, what needs our schema cannot be asked."""


def examine(patient: Patient, *, looked_at: Callable[[str], None] | None = None) -> list[Finding]:
    """
    Look at everything.

    :param looked_at: Called with each subject before it is looked at.
    :returns: What was found, and for each subject what is right, in the subjects' order.
    :raises DatabaseUnavailableError: If there is no connection.
    """
    found: list[Finding] = []
    for module in SUBJECTS:
        if looked_at:
            looked_at(module.SUBJECT)
        codes = {finding.code for finding in found}
        if blocking := codes & _STOPPING or (module.NEEDS_SCHEMA and codes & _NO_SCHEMA):
            found.append(unknown(module.SUBJECT, f"not looked at, because of {', '.join(sorted(blocking))}"))
            continue
        for check in module.CHECKS:
            found += _checked(patient, check, subject=module.SUBJECT)
    return found


def _checked(patient: Patient, check: Callable[[Patient], Iterator[Finding]], *, subject: str) -> list[Finding]:
    found: list[Finding] = []
    try:
        for finding in check(patient):
            found.append(finding)
    except psycopg.errors.QueryCanceled:
        found.append(unknown(subject, f"not all known: it took longer than {patient.limits.check_ms} ms"))
    except psycopg.errors.InsufficientPrivilege as exc:
        found.append(unknown(subject, f"not all known: {str(exc).splitlines()[0]}"))
    except psycopg.Error as exc:
        found.append(unknown(subject, f"not all known: {patient.said(exc)}"))
    except (SynapseError, OSError) as exc:
        found.append(unknown(subject, f"not all known: {exc}"))
    return found
