"""Who gets at the rows: the role that the program connects as, row-level security, and roles of web interfaces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from database.health.finding import Finding, Kind, right
from database.health.patient import Patient
from database.health.schema_state import FORGET, UPGRADE
from database.sql import statements

SUBJECT = "access"
NEEDS_SCHEMA = True

ROLE_UNBOUND = Kind(
    code="role_unbound",
    subject=SUBJECT,
    severity="warning",
    means="The role that the program connects as can come past row-level security: a superuser, the owner, one with BYPASSRLS "
    "or that inherits a tenant's role; or a table is not closed.",
    why="A fault of the program could show one tenant's rows to another; `serve` does not start.",
    mended="`DATABASE_URL` with `synapse_app`, or the statement that the finding shows.",
)
TENANT_ROLES_MISSING = Kind(
    code="tenant_roles_missing",
    subject=SUBJECT,
    severity="advice",
    means="The tenants' roles are not there: the schema's owner could not create them.",
    why="There is no tenant but `default`, and `serve` does not start.",
    mended=f"As an owner who may create roles: `{FORGET}`, then `{UPGRADE}`, which makes what is missing.",
)
API_ROLES_GRANTED = Kind(
    code="api_roles_granted",
    subject=SUBJECT,
    severity="fault",
    means="Everyone, or Supabase's `anon` or `authenticated`, has rights on tables of ours.",
    why="Whoever has the project's public key reads or writes them through its REST interface.",
    mended="`REVOKE ALL ON … FROM …`",
)
KINDS = (ROLE_UNBOUND, TENANT_ROLES_MISSING, API_ROLES_GRANTED)

_SQL = statements(Path(__file__).with_suffix(".sql"))
_TENANCY = statements(Path(__file__).parents[1] / "tenancy.sql")


def look_at_the_role(patient: Patient) -> Iterator[Finding]:
    """What `serve` looks at before it starts, see `database.tenancy.require_bound`."""
    me = patient.ask(_SQL["me"])[0]
    if not me["tenants"]:
        yield TENANT_ROLES_MISSING.text(
            f"The tenants' roles were expected in {patient.name}, but there are none.",
            f"As an owner who may create roles: {FORGET}; then {UPGRADE}, which makes them.",
        )
        return
    found = patient.ask(_TENANCY["unbound"])
    for row in found:
        what, cure = f"{row['what'][:1].upper()}{row['what'][1:]}.", row["cure"]
        yield ROLE_UNBOUND.shell(what, cure) if cure.startswith("python ") else ROLE_UNBOUND.sql(what, cure)
    if not found:
        yield right(SUBJECT, f"{me['name']} takes the roles of tenants, and row-level security binds it")


def look_at_rights(patient: Patient) -> Iterator[Finding]:
    """Rights on our tables that nobody but their tenants should have."""
    for row in patient.ask(_SQL["rights"]):
        yield API_ROLES_GRANTED.sql(
            f"{row['shown']} may {row['rights']} {row['name']}.",
            f"REVOKE ALL ON {row['name']} FROM {row['role']}",
            fixable=True,
        )


CHECKS = (look_at_the_role, look_at_rights)
