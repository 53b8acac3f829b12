"""Which version the schema is at, and bringing it to ours."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from database.connection import Database, parse_conninfo, wrapped
from database.embedded import APPLICATION_ROLE
from database.errors import DatabaseError, ExtensionMissingError, SchemaError
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
        current = current_version(connection) == SCHEMA_VERSION
        if current and connection.execute(_SQL["may_log_in"], {"role": APPLICATION_ROLE}).fetchone():
            return
    if not current:
        upgrade(owner_conninfo)
    with psycopg.connect(owner_conninfo, autocommit=True) as connection:
        connection.execute(f"ALTER ROLE {APPLICATION_ROLE} LOGIN")


@dataclass(frozen=True, kw_only=True)
class Upgrade:
    """What `upgrade` did: the version before (`None`: nothing was there) and after."""

    before: str | None
    after: str


def upgrade(owner_conninfo: str) -> Upgrade:
    """
    Bring a database to our version, in one transaction; safe to run at any time and by several at once.

    :param owner_conninfo: Connection string of the owner of the schema, in any form that libpq takes.
    :raises SchemaError: If the database is at a version that this program does not know.
    :raises ExtensionMissingError: If pgvector cannot be installed, or is too old.
    """
    name = Database(owner_conninfo).name
    try:
        with psycopg.connect(owner_conninfo, autocommit=True, connect_timeout=10) as connection:
            before = current_version(connection)
            _require_extension(connection, name=name)
    except psycopg.Error as exc:
        raise wrapped(exc, name=name) from exc
    if before != SCHEMA_VERSION:
        _run_versions(owner_conninfo, name=name)
    return Upgrade(before=before, after=SCHEMA_VERSION)


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


@dataclass(frozen=True, kw_only=True)
class Status:
    """What a database is and holds; sizes in bytes."""

    database: str
    server_version: str
    pgvector_version: str | None
    schema_version: str | None
    expected_schema_version: str
    role: str
    superuser: bool
    size: int
    tables: list[dict[str, Any]]
    invalid_indexes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)


def status(database: Database) -> Status:
    """
    Look at a database without changing it; works on one without our schema or the extension, too.

    :raises DatabaseUnavailableError: If there is no connection.
    """
    with database.unpooled() as connection:
        facts = connection.execute(_SQL["server_facts"]).fetchone() or {}
        return Status(
            database=database.name,
            schema_version=current_version(connection),
            expected_schema_version=SCHEMA_VERSION,
            tables=connection.execute(_SQL["our_tables"]).fetchall(),
            invalid_indexes=[row["name"] for row in connection.execute(_SQL["invalid_indexes"]).fetchall()],
            **facts,
        )


def _require_extension(connection: psycopg.Connection[Any], *, name: str) -> None:
    row = connection.execute(_SQL["available_extension"]).fetchone()
    wanted = ".".join(map(str, MINIMUM_PGVECTOR))
    if row is None:
        raise ExtensionMissingError(
            f"pgvector {wanted} or later was expected on the server of {name}, but it is not installed there.",
            hint="Install pgvector on the server, or use the image pgvector/pgvector:pg18.",
        )
    found = row[0]
    if tuple(int(part) for part in found.split(".")[:3]) < MINIMUM_PGVECTOR:
        raise ExtensionMissingError(
            f"pgvector {wanted} or later was expected on the server of {name}, but it has {found}.",
            hint="Update pgvector, then run ALTER EXTENSION vector UPDATE.",
        )


def _run_versions(owner_conninfo: str, *, name: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError
    from sqlalchemy.exc import DBAPIError

    config = Config()
    config.set_main_option("script_location", str(_VERSIONS).replace("%", "%%"))
    engine = _engine(owner_conninfo)
    try:
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
    except CommandError as exc:
        raise SchemaError(
            f"The schema of {name} is at a version that this program does not know: {exc}.",
            hint="Update this program.",
        ) from exc
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
