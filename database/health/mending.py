"""Mending what is safe to mend: nothing is lost, writers hardly wait, and doing it twice does no harm."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psycopg

from database.connection import Database, wrapped
from database.health.finding import Finding

LOCK_TIMEOUT = "3s"
"""How long a statement may wait for a lock, as others then wait behind it."""


@dataclass(frozen=True, kw_only=True)
class Mended:
    """
    What was done about a finding.

    :param cure: The statements, or the command.
    :param problem: Why it failed; `None` if it did not.
    """

    code: str
    cure: str
    problem: str | None = None


def mend(
    owner: Database | None, findings: Iterable[Finding], *, doing: Callable[[Finding], None] | None = None
) -> list[Mended]:
    """
    Do what mends the findings that are safe to mend.

    :param owner: The database, as the owner of the schema; without it, only files are mended.
    :param doing: Called before each.
    """
    done: list[Mended] = []
    for finding in findings:
        if not finding.fixable or not finding.cure or any(finding.cure == other.cure for other in done):
            continue
        if doing:
            doing(finding)
        problem = _files(finding.cure) if finding.cure_kind == "shell" else _statements(owner, finding.cure)
        done.append(Mended(code=finding.code, cure=finding.cure, problem=problem))
    return done


def _files(command: str) -> str | None:
    program, mode, name = shlex.split(command)
    if program != "chmod":
        raise ValueError(f"only chmod is done, not {program}")
    try:
        Path(name).chmod(int(mode, 8))
    except OSError as exc:
        return f"{exc.strerror}: {name}"
    return None


def _statements(owner: Database | None, cure: str) -> str | None:
    """Each in a transaction of its own, as concurrent builds want it; the first that fails ends the cure."""
    if owner is None:
        return "the owner of the schema is not known: set DATABASE_OWNER_URL"
    try:
        with psycopg.connect(owner.conninfo, autocommit=True, prepare_threshold=None) as connection:
            connection.execute("SELECT set_config('lock_timeout', %s, false)", (LOCK_TIMEOUT,))
            for statement in cure.split(";\n"):
                connection.execute(statement)  # type: ignore[call-overload]
    except psycopg.Error as exc:
        return str(wrapped(exc, name=owner.name).message)
    return None
