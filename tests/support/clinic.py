"""A database for the doctor: whole and filled, on a server of its own, and what is planted in it."""

# ruff: noqa: S608 - the statements are of the names that stand here

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from psycopg.conninfo import make_conninfo

from components.model_configuration import model_files
from database import certificates
from database.connection import Database
from database.health.examination import examine
from database.health.finding import Finding
from database.health.mending import mend
from database.health.patient import Configured, ModelFiles, Patient
from database.metadata_fields import declare_field

TABLE = "documents_all_minilm_l6_v2"
DOCUMENTS = 300
NOTED = ("advice", "warning", "fault")


@dataclass(frozen=True, kw_only=True)
class Plant:
    """
    Something that is wrong, and how that shows.

    :param code: The finding that it must bring.
    :param name: What is told apart where several bring the same.
    :param sql: Statements that plant it, run by the owner.
    :param around: Holds it while it is looked at; given the clinic.
    :param changed: What of the patient is another: limits, machine, clock, configuration.
    :param along: Findings that follow from the same.
    :param undo: Statements that take it away, where the cure is for somebody's hands, or leaves something of the plant.
    :param hands: Whether the cure is for somebody's hands: it is then not run, and `undo` or the end of `around` is.
    """

    code: str
    name: str = ""
    sql: tuple[str, ...] = ()
    around: Callable[[Clinic], AbstractContextManager[Any]] = field(default=lambda _: nullcontext())
    changed: Callable[[Clinic], dict[str, Any]] = field(default=lambda _: {})
    along: frozenset[str] = frozenset()
    undo: tuple[str, ...] = ()
    hands: bool = False

    @property
    def id(self) -> str:
        """A name for the test."""
        return f"{self.code}-{self.name}" if self.name else self.code


class Clinic:
    """
    A server's database with our schema, and the doctor in it.

    :param application: Connection string of the application.
    :param owner: Of the owner; `None` where only the application's is known.
    :param folder: For files.
    """

    def __init__(self, application: str, owner: str, *, folder: Path, server: Any = None) -> None:
        self.application, self.owner, self.folder, self.server = application, owner, folder, server

    def patient(self, **changed: Any) -> Patient:
        """The database as the doctor looks at it; its owner is known, and nothing of the environment is."""
        given: dict[str, Any] = {
            "application": Database(self.application, server=self.server),
            "owner": Database(self.owner),
            "configured": Configured(model_files=files_of),
        }
        return Patient(**given | changed)

    def found(self, **changed: Any) -> list[Finding]:
        """What the doctor says, but for what is right and what is not known."""
        patient = self.patient(**changed)
        try:
            return [finding for finding in examine(patient) if finding.severity in NOTED]
        finally:
            patient.close()

    def run(self, *statements: str) -> None:
        """Statements of the owner's, each in a transaction of its own; what is counted of them is counted at once."""
        with psycopg.connect(self.owner, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.execute("SELECT pg_stat_force_next_flush()")
            connection.execute("SELECT 1")

    def value(self, statement: str) -> Any:
        """What one statement of the owner's returns."""
        with psycopg.connect(self.owner, autocommit=True) as connection:
            row = connection.execute(statement).fetchone()
        assert row is not None
        return row[0]

    def reloaded(self, name: str, value: str) -> None:
        """Let the server read its settings again, and wait until a new session has this one."""
        self.run("SELECT pg_reload_conf()")
        until = time.monotonic() + 10
        while self.value(f"SELECT setting FROM pg_settings WHERE name = '{name}'") != value:
            assert time.monotonic() < until, name
            time.sleep(0.02)

    def environment(self) -> dict[str, str]:
        """For the commands of cures, run in this process."""
        return {"DATABASE_URL": self.application, "DATABASE_OWNER_URL": self.owner, "SYNAPSE_HOME": str(self.folder)}


def files_of(name: str) -> ModelFiles:
    """The model's files; what is not here is not fetched."""
    return model_files(name, offline=True)


def codes(findings: Iterable[Finding]) -> set[str]:
    """The kinds of findings."""
    return {finding.code for finding in findings}


def fill(clinic: Clinic) -> None:
    """Documents with a declared field, a source, and a certificate, all of it analysed."""
    with psycopg.connect(clinic.owner, autocommit=True) as connection:
        vectors = np.random.default_rng(0).normal(size=(DOCUMENTS, 384)).astype(np.float32)
        with connection.cursor().copy(f"COPY {TABLE} (id, content, embedding, meta) FROM STDIN") as copy:
            for number, vector in enumerate(vectors):
                copy.write_row(
                    (
                        f"d{number}",
                        f"word{number} text",
                        json.dumps(vector.tolist()),
                        f'{{"year": {2000 + number % 20}}}',
                    )
                )
        connection.execute(
            "INSERT INTO sources (model, source, root, size, mtime_ns, checked_at_ns, content_hash, meta_hash, fingerprint)"
            " VALUES ('all-minilm-l6-v2', '/docs/a.md', '/docs', 1, 1, 1, 'h', 'm', 'f')"
        )
    declare_field(Database(clinic.owner), TABLE, "year", "number")
    database = Database(clinic.application).for_tenant("default")
    certificates.save(
        database,
        TABLE,
        ef_search=200,
        top_k=10,
        recall=0.998,
        lower=0.99,
        certificate={"rows": DOCUMENTS, "groups": []},
    )
    database.close()
    clinic.run("VACUUM ANALYZE")


def cured(clinic: Clinic, findings: Iterable[Finding], *, invoke: Callable[[list[str]], int]) -> None:
    """
    Do what findings say: what is safe as `--fix` does it, SQL as the owner, commands in this process.

    :param invoke: Runs `synapse.py` with arguments and returns its exit code.
    """
    for finding in findings:
        assert finding.cure
        assert finding.why
        if finding.fixable:
            (done,) = mend(Database(clinic.owner), [finding])
            assert done.problem is None, done
        elif finding.cure_kind == "sql":
            clinic.run(*finding.cure.split(";\n"))
        elif finding.cure_kind == "shell":
            program, door, *arguments = finding.cure.split()
            assert (program, door) == ("python", "synapse.py")
            assert invoke(arguments) == 0, finding.cure


@contextmanager
def other_database(clinic: Clinic, *, template: bool = False) -> Iterator[Clinic]:
    """A database beside it: empty, or a copy of it."""
    name = f"beside_{os.urandom(3).hex()}"
    elsewhere = make_conninfo(clinic.owner, dbname="postgres")
    with psycopg.connect(elsewhere, autocommit=True) as connection:
        # Pools of commands that ran in this process; they open new connections.
        connection.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = 'synapse'")
        connection.execute(f"CREATE DATABASE {name}{' TEMPLATE synapse' if template else ''}")
        try:
            yield Clinic(
                make_conninfo(clinic.application, dbname=name),
                make_conninfo(clinic.owner, dbname=name),
                folder=clinic.folder,
                server=clinic.server,
            )
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
