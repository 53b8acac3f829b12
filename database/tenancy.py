"""
Tenants: whose documents are whose, held by PostgreSQL itself.

A tenant has a role, and its documents, keywords and ledger stand in a schema of its own, which nobody but that role may use:
`synapse_tenant_acme` and `tenant_acme`; the tenant `default` has the schema `public`. A transaction takes the role
(`set_config('role', …, true)`, in the round trip of its first statement), so that it holds behind a transaction pooler and
ends with the transaction. The role that connects inherits none of them: without a tenant it sees nothing.

Policies that look at rows or settings would cost the filters their indexes; tables of a tenant's own need none that does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from database.errors import GuardError, InvalidInputError, UnknownTenantError
from database.sql import statements

if TYPE_CHECKING:
    from psycopg import Connection

    from database.connection import Database

DEFAULT_TENANT = "default"
EXTENSIONS = "extensions"
"""Where Supabase has pgvector; elsewhere there is no such schema, and PostgreSQL passes over the name."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_SQL = statements(Path(__file__).with_suffix(".sql"))


@dataclass(frozen=True, kw_only=True)
class Tenant:
    """A tenant: its name, and since when it is there."""

    name: str
    created_at: datetime


def checked_tenant(name: str) -> str:
    """
    A tenant's name, as it is.

    :raises InvalidInputError: If no tenant can have it.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInputError(
            f"A tenant's name has 1 to 40 of a to z, 0 to 9 and _, a letter first, but is {name[:60]!r}."
        )
    return name


def schema_of(tenant: str) -> str:
    """The schema of a tenant's tables."""
    return "public" if tenant == DEFAULT_TENANT else f"tenant_{checked_tenant(tenant)}"


def tenant_of(schema: str) -> str | None:
    """The tenant whose tables a schema has; `None` for a schema that is no tenant's."""
    if schema == "public":
        return DEFAULT_TENANT
    name = schema.removeprefix("tenant_")
    return name if name != schema and _NAME.fullmatch(name) else None


def search_path(tenant: str) -> str:
    """Where a tenant's statements look: at its own tables first, then at what all share, then for pgvector."""
    schema = schema_of(tenant)
    return f"public, {EXTENSIONS}" if schema == "public" else f"{schema}, public, {EXTENSIONS}"


def transaction_settings(tenant: str) -> dict[str, str]:
    """The settings by which a transaction becomes a tenant's, for `set_config(…, true)`."""
    return {"role": f"synapse_tenant_{checked_tenant(tenant)}", "search_path": search_path(tenant)}


def takes_roles(connection: Connection[Any]) -> bool:
    """Whether who connects works through the roles of tenants; the owner of the schema does not."""
    row: Any = connection.execute(_SQL["takes_roles"]).fetchone()
    return bool(row and (row["takes_roles"] if isinstance(row, dict) else row[0]))


def require_schema(connection: Connection[Any], tenant: str) -> None:
    """
    Check that a tenant's schema is there: for the owner, who takes no role that could be missing.

    :raises UnknownTenantError: If it is not.
    """
    row: Any = connection.execute(_SQL["has_schema"], {"schema": schema_of(tenant)}).fetchone()
    if not (row["found"] if isinstance(row, dict) else row[0]):
        raise UnknownTenantError(
            f"A tenant was expected, but there is no {tenant!r}.", hint="Run `python synapse.py tenants list`."
        )


def list_tenants(database: Database) -> list[Tenant]:
    """All tenants, by name."""
    return [Tenant(**row) for row in database.without_tenant().read(_SQL["list_tenants"])]


def all_tenants(database: Database) -> list[Database]:
    """The database as each tenant sees it; where there are no tenants, as it is."""
    return [database.for_tenant(tenant.name) for tenant in list_tenants(database)] or [database]


def create_tenant(owner: Database, name: str) -> bool:
    """
    Make a tenant: role, schema, ledger, and a documents table per embedding model.

    :param owner: The database, connected as the owner of the schema, who may create roles.
    :returns: Whether it is new.
    :raises InvalidInputError: If no tenant can have that name.
    :raises DatabaseError: If the owner may not create roles.
    """
    checked_tenant(name)
    with owner.without_tenant().connection() as connection:
        found = connection.execute(_SQL["has_tenant"], {"name": name}).fetchone() or {}
        connection.execute(_SQL["create_tenant"], {"name": name})
    return not found["found"]


def drop_tenant(owner: Database, name: str) -> dict[str, int]:
    """
    Remove a tenant with its documents, its users, their keys and conversations.

    :returns: The rows that went from the tables that all tenants share, by table.
    :raises GuardError: For the tenant `default`.
    :raises UnknownTenantError: If there is none of that name.
    """
    if checked_tenant(name) == DEFAULT_TENANT:
        raise GuardError("The tenant default is not dropped: its tables are the schema itself.")
    with owner.without_tenant().connection() as connection:
        found = connection.execute(_SQL["has_tenant"], {"name": name}).fetchone() or {}
        if not found["found"]:
            raise UnknownTenantError(
                f"A tenant was expected, but there is no {name!r}.", hint="Run `python synapse.py tenants list`."
            )
        row = connection.execute(_SQL["drop_tenant"], {"name": name}).fetchone() or {}
    return dict(row["counts"])


def require_bound(database: Database) -> None:
    """
    Check that the role that connects cannot come past the tenants' policies.

    :raises GuardError: If it can; the message says by what, and the hint which statement takes it away.
    """
    with database.without_tenant().connection() as connection:
        roles = connection.execute("SELECT to_regrole('synapse_tenant_default') IS NOT NULL AS found").fetchone() or {}
        found = connection.execute(_SQL["unbound"]).fetchall()
    if not roles["found"]:
        raise GuardError(
            f"The tenants' roles were expected in {database.name}, but there are none.",
            hint="Run `python synapse.py database upgrade` as an owner who may create roles.",
        )
    if found:
        raise GuardError(
            f"A role that row-level security binds was expected, but in {database.name} "
            f"{'; '.join(row['what'] for row in found)}.",
            hint="Connect as synapse_app (DATABASE_URL), or run as the owner: "
            f"{'; '.join(row['cure'] for row in found)}.",
        )
