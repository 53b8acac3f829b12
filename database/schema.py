"""Which version the schema is at, and bringing it to ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.sql import SQL, Identifier

from database.connection import Database, parse_conninfo, wrapped
from database.embedded import APPLICATION_ROLE
from database.errors import DatabaseError, ExtensionMissingError, GuardError, SchemaError
from database.online import Online, OnProgress, SchemaProgress, silent, turn, unfinished
from database.schema_losses import losses, require_possible
from database.sql import statements

if TYPE_CHECKING:
    from sqlalchemy import Engine

SCHEMA_VERSION = "0006"
"""The newest of `schema_versions/versions`; a constant, so that the common case needs no Alembic."""

MINIMUM_PGVECTOR = (0, 8, 0)
"""The first with iterative index scans."""

_VERSIONS = Path(__file__).parent / "schema_versions"
_SQL = statements(Path(__file__).with_suffix(".sql"))


def current_version(connection: psycopg.Connection[Any]) -> str | None:
    """The version that the schema is at; `None` where nothing of ours is."""
    cursor = connection.cursor(row_factory=psycopg.rows.scalar_row)
    if not cursor.execute(_SQL["has_version_table"]).fetchone():
        return None
    version: str | None = cursor.execute(_SQL["current_version"]).fetchone()
    return version


def require_current(database: Database) -> None:
    """
    Check that the schema is at the version that this program works with.

    :raises SchemaError: If it is at another one, or there is none.
    """
    with database.connection() as connection:
        found = current_version(connection)
    if found is None:
        raise SchemaError(
            f"The schema was expected at version {SCHEMA_VERSION}, but {database.name} has none.",
            hint="Run `python synapse.py database upgrade`.",
        )
    if found != SCHEMA_VERSION:
        newer = found > SCHEMA_VERSION
        raise SchemaError(
            f"The schema was expected at version {SCHEMA_VERSION}, but {database.name} is at {found}.",
            hint="Update this program." if newer else "Run `python synapse.py database upgrade`.",
        )


def ensure_current(owner_conninfo: str) -> None:
    """Bring the embedded database to our version, and let the application role in; cheap where nothing is to do."""
    with psycopg.connect(owner_conninfo, autocommit=True) as connection:
        current = current_version(connection) == SCHEMA_VERSION and unfinished(connection) is None
        if current and connection.execute(_SQL["may_log_in"], {"role": APPLICATION_ROLE}).fetchone():
            return
    if not current:
        upgrade(
            owner_conninfo, finish=True
        )  # whoever shares an embedded server is on this machine, and of this version
    with psycopg.connect(owner_conninfo, autocommit=True) as connection:
        connection.execute(f"ALTER ROLE {APPLICATION_ROLE} LOGIN")


@dataclass(frozen=True, kw_only=True)
class Change:
    """
    What `upgrade` or `downgrade` did: the version before (`None`: nothing was there) and after.

    :param old_programs: Whether programs from before tenants are still let in; see `finish`.
    :param lost: What went with the versions taken back, rows by what they were.
    """

    before: str | None
    after: str
    old_programs: bool = False
    lost: dict[str, int] = field(default_factory=dict)


def upgrade(owner_conninfo: str, *, finish: bool = False, on_progress: OnProgress = silent) -> Change:
    """
    Bring a database to our version, while programs go on reading and writing.

    Several at once take turns. One that was interrupted is gone on with, and a downgrade that was interrupted is taken back. An
    empty database gets all versions in one transaction.

    :param owner_conninfo: Connection string of the owner of the schema, in any form that libpq takes; through no pooler that
        gives each transaction another connection.
    :param finish: Whether to shut out programs from before tenants at once, and drop what only they use.
    :param on_progress: Called from this thread.
    :raises SchemaError: If the database is at a version that this program does not know.
    :raises ExtensionMissingError: If pgvector cannot be installed, or is too old.
    """
    with _changing(owner_conninfo, on_progress=on_progress) as online:
        before, connection = current_version(online.connection), online.connection
        _require_extension(connection, name=online.name)
        if before is None and not (connection.execute(_SQL["has_tables"]).fetchone() or {})["found"]:
            _run_versions(owner_conninfo, "upgrade", "head", name=online.name)
            return Change(before=None, after=SCHEMA_VERSION)
        if before is not None and before not in _known_versions():
            raise SchemaError(
                f"The schema of {online.name} is at version {before}, which this program does not know; it knows up to "
                f"{SCHEMA_VERSION}.",
                hint="Update this program.",
            )
        interrupted = unfinished(connection)
        if before != SCHEMA_VERSION or interrupted:
            _upgrade_online(owner_conninfo, online, before=before, interrupted=interrupted)
        if lets_old_programs_in(connection) and (finish or before is None or not _has_data(online)):
            _shut_out_old_programs(online)
        return Change(before=before, after=SCHEMA_VERSION, old_programs=lets_old_programs_in(connection))


def downgrade(owner_conninfo: str, version: str, *, yes: bool = False, on_progress: OnProgress = silent) -> Change:
    """
    Take a database back to an earlier version, while programs go on reading and writing documents.

    :param version: One of this program's, such as `0004`.
    :param yes: Whether to lose what the earlier version has no place for.
    :raises SchemaError: If there is no such version, or the database is not above it.
    :raises GuardError: If something would be lost, and `yes` is not given; the message says what.
    """
    with _changing(owner_conninfo, on_progress=on_progress) as online:
        connection = online.connection
        before, interrupted = current_version(connection), unfinished(connection)
        if interrupted and before is not None and interrupted["before"] < interrupted["after"]:
            before = _next_version(before)  # an upgrade left it half-made
        if interrupted and version == before:  # all but the end was done
            online.clear_note()
            return Change(before=before, after=version)
        before = _require_below(version, before, name=online.name)
        lost = _require_nothing_lost(online, version, yes=yes)
        online.write_note(before=before, after=version)
        if interrupted:
            connection.execute(_SQL["set_version"], {"version": before})
        _run_versions(owner_conninfo, "downgrade", version, name=online.name, online=online)
        online.clear_note()
        return Change(before=before, after=version, lost=lost)


def lets_old_programs_in(connection: psycopg.Connection[Any]) -> bool:
    """Whether programs from before tenants are still let in."""
    row: Any = connection.execute(_SQL["lets_old_programs_in"]).fetchone()
    return bool(row["found"] if isinstance(row, dict) else row[0])


def grant_login(owner_conninfo: str, *, application_conninfo: str) -> bool:
    """
    Let the application role log in with the password of its connection string; sent as a SCRAM verifier.

    :returns: Whether there was anything to do: the string names our role and a password.
    """
    application = parse_conninfo(application_conninfo)
    password = application.get("password")
    if application.get("user") != APPLICATION_ROLE or not password:
        return False
    try:
        with psycopg.connect(owner_conninfo, autocommit=True, connect_timeout=10) as connection:
            verifier = connection.pgconn.encrypt_password(
                password.encode(), APPLICATION_ROLE.encode(), b"scram-sha-256"
            ).decode()
            connection.execute(
                psycopg.sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(
                    psycopg.sql.Identifier(APPLICATION_ROLE), psycopg.sql.Literal(verifier)
                )
            )
    except psycopg.Error as exc:
        raise wrapped(exc, name=Database(owner_conninfo).name) from exc
    return True


def _require_extension(connection: psycopg.Connection[Any], *, name: str) -> None:
    row = connection.execute(_SQL["available_extension"]).fetchone()
    wanted = ".".join(map(str, MINIMUM_PGVECTOR))
    if row is None:
        raise ExtensionMissingError(
            f"pgvector {wanted} or later was expected on the server of {name}, but it is not installed there.",
            hint="Install pgvector on the server, or use the image pgvector/pgvector:pg18.",
        )
    found = row["version"]
    if tuple(int(part) for part in found.split(".")[:3]) < MINIMUM_PGVECTOR:
        raise ExtensionMissingError(
            f"pgvector {wanted} or later was expected on the server of {name}, but it has {found}.",
            hint="Update pgvector, then run ALTER EXTENSION vector UPDATE.",
        )


@contextmanager
def _changing(owner_conninfo: str, *, on_progress: OnProgress) -> Iterator[Online]:
    name = Database(owner_conninfo).name

    def waiting(who: str) -> None:
        on_progress(SchemaProgress(version=SCHEMA_VERSION, step="another upgrade of this database", waiting_for=who))

    try:
        with turn(owner_conninfo, waiting=waiting) as connection:
            yield Online(connection, conninfo=owner_conninfo, name=name, on_progress=on_progress)
    except psycopg.OperationalError as exc:
        raise wrapped(exc, name=name) from exc
    except psycopg.Error as exc:
        raise DatabaseError(
            f"The schema of {name} could not be changed: {' '.join(str(exc).split())}",
            hint="Run it as the owner of the schema: set DATABASE_OWNER_URL. What was done is kept, and gone on with.",
        ) from exc


def _require_below(version: str, before: str | None, *, name: str) -> str:
    known = _known_versions()
    if before not in known or version not in known or version >= before:
        raise SchemaError(
            f"A version below that of {name} was expected, {before or 'which has none'}, but not {version}.",
            hint=f"Versions are {', '.join(known)}.",
        )
    return before


def _require_nothing_lost(online: Online, version: str, *, yes: bool) -> dict[str, int]:
    """What is lost with consent."""
    require_possible(online.connection, version, name=online.name)
    lost = losses(online.connection, version)
    if lost and not yes:
        counted = ", ".join(f"{rows:,} {what}" for what, rows in lost.items())
        raise GuardError(
            f"Version {version} has no place for what is in {online.name}: {counted}.",
            hint="Make a backup with `python synapse.py database backup`, then repeat with --yes.",
        )
    return lost


def _upgrade_online(
    owner_conninfo: str, online: Online, *, before: str | None, interrupted: dict[str, str] | None
) -> None:
    if before is not None:
        if interrupted and interrupted["after"] < interrupted["before"]:  # what a downgrade had begun to take back
            before = max((known for known in _known_versions() if known < before), default=before)
            online.connection.execute(_SQL["set_version"], {"version": before})
        online.write_note(before=before, after=SCHEMA_VERSION)
    _run_versions(owner_conninfo, "upgrade", "head", name=online.name, online=online)
    online.clear_note()


def _shut_out_old_programs(online: Online) -> None:
    """Close the default tenant's tables to programs from before tenants, and drop the indexes that only they use."""
    online.version = SCHEMA_VERSION
    for model in online.models():
        online.drop_index(f"{model['table_name']}_keyword_index")
    for row in online.connection.execute(_SQL["tables_of_old_programs"]).fetchall():
        online.run(f"closing {row['name']}", _SQL["shut_out_old_programs"], row)


def _has_data(online: Online) -> bool:
    tables = ["sources", *(model["table_name"] for model in online.models())]
    exists = SQL("SELECT EXISTS (SELECT FROM {}) AS found")
    rows = [online.connection.execute(exists.format(Identifier("public", name))).fetchone() for name in tables]
    return any(row and row["found"] for row in rows)


def _known_versions() -> list[str]:
    """All versions of this program, the first first."""
    return sorted(path.name[:4] for path in (_VERSIONS / "versions").glob("[0-9]*.py"))


def _next_version(version: str) -> str:
    return min((known for known in _known_versions() if known > version), default=version)


def _run_versions(
    owner_conninfo: str, direction: str, version: str, *, name: str, online: Online | None = None
) -> None:
    from alembic import command
    from alembic.config import Config
    from sqlalchemy.exc import DBAPIError

    config = Config()
    config.set_main_option("script_location", str(_VERSIONS).replace("%", "%%"))
    config.attributes["online"] = online
    engine = _engine(owner_conninfo)
    try:
        with engine.connect() as connection:
            if online is not None:  # each step is committed by itself
                connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            config.attributes["connection"] = connection
            getattr(command, direction)(config, version)
            if online is None:
                connection.commit()
    except DBAPIError as exc:
        reason = " ".join(str(exc.orig).split())
        raise DatabaseError(
            f"The schema of {name} could not be upgraded: {reason}",
            hint="Nothing was changed. Run it as the owner of the schema: set DATABASE_OWNER_URL.",
        ) from exc
    finally:
        engine.dispose()


def _engine(conninfo: str) -> Engine:
    """SQLAlchemy's engine on psycopg2; the parameters go to libpq as they are, as its URLs do not take every form."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    return create_engine("postgresql+psycopg2://", connect_args=parse_conninfo(conninfo), poolclass=NullPool)
