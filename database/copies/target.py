"""
The database that a copy is made in.

An empty one is filled where it is, and so is one with our schema and nothing in it, as `database upgrade` and `init.sql` leave it.
One that holds anything is replaced only where that was asked for: the copy is made in a database beside it, and takes its name
when it is whole. Until then its schema has the version `restoring`, which no program works with; the next copy clears it away.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row
from psycopg.sql import SQL, Identifier

from database.connection import Database, parse_conninfo, wrapped
from database.copies.inventory import UNFINISHED, Inventory, has_rows, take_inventory
from database.copies.manifest import Manifest
from database.errors import DatabaseError, ExtensionMissingError, GuardError
from database.schema import MINIMUM_PGVECTOR
from database.sql import statements

MAINTENANCE = ("postgres", "template1")
"""Databases of which every server has one, to be connected to while another is renamed."""

_ALWAYS_FILLED = {"alembic_version", "embedding_models", "tenants"}
_SQL = statements(Path(__file__).with_suffix(".sql"))


@dataclass(kw_only=True)
class Place:
    """
    Where a copy is made.

    :param conninfo: Of the database that is filled.
    :param name: Of the database that is meant in the end, without secrets.
    :param state: What was found there: `empty`, `pristine` (our schema, and nothing in it), `unfinished` or `occupied`.
    :param final: The name that the database gets at the end, where it is made beside another.
    :param left_out: What could not be taken over: `{name, reason}`.
    :param roles_made: Roles that the server had not.
    :param replaced: Whether a database that held something is gone.
    :param holder: The connection whose lock keeps others out.
    :param idle: Connections that nobody works with just now, and `busy` the others.
    """

    conninfo: str
    name: str
    state: str = "empty"
    final: str | None = None
    left_out: list[dict[str, str]] = field(default_factory=list)
    roles_made: list[str] = field(default_factory=list)
    replaced: bool = False
    holder: psycopg.Connection[Any] | None = None
    idle: list[psycopg.Connection[Any]] = field(default_factory=list, repr=False)
    busy: list[psycopg.Connection[Any]] = field(default_factory=list, repr=False)

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection in autocommit mode, without time limits; kept for the next who asks, unless it fails."""
        connection = self.idle.pop() if self.idle else self.connected()
        self.busy.append(connection)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        finally:
            self.busy.remove(connection)
        self.idle.append(connection)

    def interrupt(self) -> None:
        """Have the server end what it is at for us."""
        for connection in [*self.busy]:
            with suppress(psycopg.Error):
                connection.cancel_safe(timeout=5)

    def close(self) -> None:
        """Close the connections that are kept."""
        while self.idle:
            self.idle.pop().close()

    def connected(self) -> psycopg.Connection[Any]:
        """The same, new, and the caller's to close."""
        connection = psycopg.connect(
            self.conninfo, autocommit=True, prepare_threshold=None, client_encoding="UTF8", row_factory=dict_row
        )
        for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):
            connection.execute("SELECT set_config(%s, '0', false)", (setting,))
        return connection


@contextmanager
def opened(conninfo: str, manifest: Manifest, *, replace: bool = False) -> Iterator[Place]:
    """
    Make room for a copy: clear away what holds nothing, or begin a database beside.

    Nobody else copies into the same database meanwhile. The caller fills it and ends with `publish`.

    :param conninfo: Of the owner; the database must be there.
    :param manifest: Of what is to be copied.
    :param replace: Whether a database with contents may be replaced, once the copy is whole.
    :raises GuardError: If it has contents and may not be replaced, or tables of somebody else have names that the copy needs.
    """
    database = Database(conninfo)
    place = Place(conninfo=database.conninfo, name=database.name)
    try:
        with closing(place), _held(place) as connection:
            place.state = examined(connection, manifest, name=database.name)
            if place.state in ("pristine", "unfinished"):
                _clear(connection, manifest)
            if place.state != "occupied":
                yield place
                return
            require_replaceable(database.name, replace=replace)
            _require_nobody_elses(connection, manifest, name=database.name)
            _begin_beside(place, connection)
        try:
            with closing(place), _held(place):
                yield place
        finally:
            if not place.replaced:
                _discard(place)
    except psycopg.Error as exc:
        raise wrapped(exc, name=database.name) from exc


@contextmanager
def _held(place: Place) -> Iterator[psycopg.Connection[Any]]:
    """A connection with a lock on the database that is filled, until `publish` lets it go."""
    with psycopg.connect(place.conninfo, autocommit=True, row_factory=dict_row) as connection:
        if not (connection.execute(_SQL["lock"]).fetchone() or {})["free"]:
            raise GuardError(f"Nobody else was expected to copy into {place.name}, but somebody does just now.")
        place.holder = connection
        yield connection


def require_replaceable(name: str, *, replace: bool) -> None:
    """
    Check that what a database holds may go.

    :raises GuardError: If that was not asked for.
    """
    if not replace:
        raise GuardError(
            f"An empty database was expected, but {name} holds data of ours.",
            hint="Name another with --to, or repeat with --replace: it is replaced when the copy is whole, not before.",
        )


def examined(connection: psycopg.Connection[Any], manifest: Manifest, *, name: str) -> str:
    """
    What stands where a copy is to be made.

    :returns: `empty`, `pristine`, `unfinished` or `occupied`.
    :raises GuardError: If tables of somebody else have names that the copy needs.
    :raises ExtensionMissingError: If pgvector cannot be installed there.
    """
    facts = connection.execute(_SQL["facts"]).fetchone() or {}
    if facts["pgvector_version"] is None:
        raise ExtensionMissingError(
            f"pgvector {'.'.join(map(str, MINIMUM_PGVECTOR))} or later was expected on the server of {name}, "
            "but it is not installed there.",
            hint="Install pgvector on the server, or use the image pgvector/pgvector:pg18.",
        )
    if facts["encoding"] != "UTF8":
        raise DatabaseError(
            f"A database in UTF8 was expected, but {name} is in {facts['encoding']}.",
            hint="Make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0.",
        )
    with connection.transaction():
        found = take_inventory(connection)
        ours = _ours(connection, found)
        state = _state(connection, found, ours)
        if state in ("empty", "pristine"):
            _require_no_clash(connection, manifest, ours, name=name)
    return state


def _state(connection: psycopg.Connection[Any], found: Inventory, ours: set[str]) -> str:
    if not ours and len(found.schemas) <= 1:
        return "empty"
    if found.schema_version == UNFINISHED:
        return "unfinished"
    return "occupied" if _has_contents(connection, found, ours) else "pristine"


def _require_no_clash(connection: psycopg.Connection[Any], manifest: Manifest, ours: set[str], *, name: str) -> None:
    taken = {row["name"] for row in connection.execute(_SQL["clashes"], {"names": list(manifest.tables)})} - ours
    if taken:
        raise GuardError(
            f"Tables of the copy were expected to be new to {name}, but others have their names: {', '.join(sorted(taken))}.",
            hint="Name another database with --to.",
        )


def _require_nobody_elses(connection: psycopg.Connection[Any], manifest: Manifest, *, name: str) -> None:
    """Check that replacing the whole database takes nothing away that is not ours and that the copy does not have."""
    with connection.transaction():
        ours = _ours(connection, take_inventory(connection)) | {*manifest.tables}
        others = {row["name"] for row in connection.execute(_SQL["all_tables"])} - ours
    if others:
        raise GuardError(
            f"Nothing but ours was expected in {name}, which is replaced as a whole, but there is also "
            f"{', '.join(sorted(others)[:5])}, {len(others)} tables in all.",
            hint="Name another database with --to.",
        )


def _ours(connection: psycopg.Connection[Any], found: Inventory) -> set[str]:
    documents = [model["table_name"] + suffix for model in found.models for suffix in ("", "_keywords", "_terms")]
    schemas = [schema for schema in found.schemas if schema != "public"]
    rows = connection.execute(_SQL["ours"], {"schemas": schemas, "documents": documents})
    return {f"{row['schema']}.{row['name']}" for row in rows}


def _has_contents(connection: psycopg.Connection[Any], found: Inventory, ours: set[str]) -> bool:
    if set(found.tenants) - {"default"} or len(found.models) > 1:
        return True
    return any(
        has_rows(connection, table, found.tenants)
        for table in found.tables
        if table.full_name in ours and table.name not in _ALWAYS_FILLED
    )


def _clear(connection: psycopg.Connection[Any], manifest: Manifest) -> None:
    """Drop what is ours, all or nothing: it has no contents, or is a copy that did not end."""
    with connection.transaction():
        found = take_inventory(connection)
        ours = _ours(connection, found)
        if found.schema_version == UNFINISHED:
            ours |= set(manifest.tables) & found.names
        for row in connection.execute(_SQL["our_views"]).fetchall():
            connection.execute(SQL("DROP VIEW IF EXISTS {} CASCADE").format(SQL(row["name"])))
        for schema in found.schemas:
            if schema != "public":
                connection.execute(SQL("DROP SCHEMA {} CASCADE").format(Identifier(schema)))
        for table in found.tables:
            if table.full_name in ours and table.schema == "public":
                connection.execute(SQL("DROP TABLE {} CASCADE").format(table.identifier))
        for row in connection.execute(_SQL["our_functions"]).fetchall():
            connection.execute(SQL("DROP FUNCTION IF EXISTS {} CASCADE").format(SQL(row["name"])))


# A database beside


def _begin_beside(place: Place, connection: psycopg.Connection[Any]) -> None:
    place.final = connection.info.dbname
    fresh = f"{place.final[:50]}_restoring"
    with _maintaining(place.conninfo) as other:
        try:
            _drop_leftover(other, fresh)
            other.execute(SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'").format(Identifier(fresh)))
        except psycopg.errors.InsufficientPrivilege as exc:
            raise DatabaseError(
                f"A database beside {place.name} was expected, but this role may not create one.",
                hint="Make an empty database yourself, and name it with --to.",
            ) from exc
        except psycopg.errors.ObjectInUse as exc:
            raise GuardError(
                f"Nobody else was expected to copy into {place.name}, but somebody does just now."
            ) from exc
    place.conninfo = make_conninfo(place.conninfo, dbname=fresh)


def _discard(place: Place) -> None:
    """Remove what was begun beside, after a failure."""
    with suppress(psycopg.Error), _maintaining(place.conninfo) as other:
        _drop_leftover(other, str(parse_conninfo(place.conninfo)["dbname"]))


def _drop_leftover(other: psycopg.Connection[Any], name: str) -> None:
    other.execute(SQL("DROP DATABASE IF EXISTS {}").format(Identifier(name)))


@contextmanager
def _maintaining(conninfo: str) -> Iterator[psycopg.Connection[Any]]:
    for number, dbname in enumerate(MAINTENANCE):
        try:
            connection = psycopg.connect(make_conninfo(conninfo, dbname=dbname), autocommit=True, row_factory=dict_row)
        except psycopg.OperationalError:
            if number + 1 == len(MAINTENANCE):
                raise
            continue
        with connection:
            yield connection
        return


# What a database needs before its tables, and after them


def prepare(place: Place, manifest: Manifest, tables: str) -> None:
    """
    Extension, roles, tables, and the mark that the copy is not whole: all of it or nothing.

    :param tables: SQL that makes whatever comes before rows; it changes its connection's settings.
    """
    with closing(place.connected()) as connection, connection.transaction():
        _make_extension(connection, manifest, name=place.name)
        make_roles(connection, manifest, place)
        connection.execute("CREATE SCHEMA IF NOT EXISTS public")
        connection.execute(_SQL["mark_unfinished"])
        connection.execute("INSERT INTO public.alembic_version VALUES (%s)", (UNFINISHED,))
        connection.execute(tables)  # type: ignore[call-overload]


def _make_extension(connection: psycopg.Connection[Any], manifest: Manifest, *, name: str) -> None:
    """Where the copy's tables look for its types."""
    wanted = manifest.pgvector_schema or "public"
    found = (connection.execute(_SQL["facts"]).fetchone() or {})["pgvector_schema"]
    if found == wanted:
        return
    if wanted not in ("public", "pg_catalog"):
        connection.execute(SQL("CREATE SCHEMA IF NOT EXISTS {}").format(Identifier(wanted)))
    if found is None:
        try:
            connection.execute(SQL("CREATE EXTENSION vector SCHEMA {}").format(Identifier(wanted)))
        except psycopg.errors.InsufficientPrivilege as exc:
            raise ExtensionMissingError(
                f"The extension vector was expected in the database for {name}, and this role may not install it.",
                hint="Let an administrator make an empty database with it, and name that with --to.",
            ) from exc
        return
    try:
        connection.execute(SQL("ALTER EXTENSION vector SET SCHEMA {}").format(Identifier(wanted)))
    except psycopg.Error as exc:
        raise DatabaseError(
            f"The extension vector was expected in the schema {wanted}, but in {name} it is in {found} and cannot be moved.",
            hint=f"As its owner: ALTER EXTENSION vector SET SCHEMA {wanted}.",
        ) from exc


def make_roles(connection: psycopg.Connection[Any], manifest: Manifest, place: Place) -> None:
    """
    Our roles, as far as the server has them not, from another database of ours perhaps; without passwords.

    :raises DatabaseError: If who connects may not create roles.
    """
    try:
        for name in manifest.roles:
            if not _found(connection, "role_exists", name=name):
                connection.execute(
                    SQL("CREATE ROLE {} NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE").format(Identifier(name))
                )
                place.roles_made.append(name)
        for given in manifest.memberships:
            if not _found(connection, "is_member", **given):
                connection.execute(
                    SQL("GRANT {} TO {} WITH INHERIT {}, SET {}").format(
                        Identifier(given["role"]),
                        Identifier(given["member"]),
                        SQL("TRUE" if given["inherit"] else "FALSE"),
                        SQL("TRUE" if given["set"] else "FALSE"),
                    )
                )
        for name in manifest.roles:  # an owner that policies bind inherits the tenants' roles
            if name.startswith("synapse_tenant_") and not _found(connection, "i_am_member", role=name):
                connection.execute(SQL("GRANT {} TO CURRENT_USER WITH INHERIT TRUE, SET TRUE").format(Identifier(name)))
    except psycopg.errors.InsufficientPrivilege as exc:
        raise DatabaseError(
            f"An owner who may create roles and give them was expected at {place.name}, but this one may not.",
            hint="The copy needs the roles synapse_app and synapse_tenant_…: connect as another, or let an administrator make them.",
        ) from exc


def _found(connection: psycopg.Connection[Any], statement: str, **params: Any) -> bool:
    row = connection.execute(_SQL[statement], params).fetchone()
    return bool(row and row["found"])


def close_to_others(connection: psycopg.Connection[Any], names: list[str]) -> None:
    """Take back rights that the server gave away on the new tables by its defaults; the copy brings its own."""
    for row in connection.execute(_SQL["granted_by_default"], {"names": names}).fetchall():
        connection.execute(SQL("REVOKE ALL ON {} FROM {}").format(SQL(row["name"]), SQL(row["grantee"])))


def publish(place: Place, manifest: Manifest) -> None:
    """
    Give a copy that is whole its schema's version, and its name where it was made beside another database.

    :raises DatabaseError: If programs still use the database that is to be replaced.
    """
    with place.connection() as connection:
        connection.execute(_SQL["set_version"], {"version": manifest.schema_version})
    if place.final is None:
        return
    place.close()
    if place.holder is not None:
        place.holder.close()
    fresh = str(parse_conninfo(place.conninfo)["dbname"])
    old = f"{place.final[:50]}_replaced"
    with _maintaining(place.conninfo) as other:
        _drop_leftover(other, old)
        try:
            _rename(other, place.final, old)
        except psycopg.errors.ObjectInUse as exc:
            raise GuardError(
                f"Nobody was expected to use {place.name} while it is replaced, but somebody is connected; it is as it was.",
                hint="Stop the programs that use it, then run it again.",
            ) from exc
        try:
            _rename(other, fresh, place.final)
        except psycopg.Error:
            _rename(other, old, place.final)
            raise
        place.conninfo = make_conninfo(place.conninfo, dbname=place.final)
        _drop_leftover(other, old)
        place.replaced = True


def _rename(other: psycopg.Connection[Any], name: str, to: str) -> None:
    other.execute(SQL("ALTER DATABASE {} RENAME TO {}").format(Identifier(name), Identifier(to)))
