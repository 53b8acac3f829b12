"""
Tenants: a role and a schema for each; what there was belongs to the tenant `default`.

Revision ID: 0004
Revises: 0003
"""

from pathlib import Path

from database.schema_versions import steps

revision = "0004"
down_revision = "0003"

DATABASE = Path(__file__).parents[2]

ROLES = (
    DATABASE / "tenancy_functions.sql",
    DATABASE / "create_documents_table.sql",
    Path(__file__).with_name("0004.sql"),
)
DEFAULT_TENANT = (Path(__file__).with_name("0004_default_tenant.sql"),)
OLD_PROGRAMS_OUT = (Path(__file__).with_name("0004_old_programs_out.sql"),)
FILES = (*ROLES, *DEFAULT_TENANT, *OLD_PROGRAMS_OUT)
"""What this version runs, in order, in an empty database; in others, programs from before tenants are still let in."""

DOWN = Path(__file__).with_name("0004_down.sql")


def upgrade() -> None:
    if steps.online() is None:
        steps.run(revision, FILES)
        return
    steps.run(revision, ROLES)
    online = steps.required(revision)
    steps.build_missing_indexes(online)
    steps.bind_tables(online, steps.tables_of_default(online))
    steps.run(revision, DEFAULT_TENANT)


def downgrade() -> None:
    online = steps.required(revision)
    for tenant in steps.other_tenants(online):
        online.run(f"tenant {tenant}", "SELECT synapse_drop_tenant(%(tenant)s)", {"tenant": tenant})
    steps.unbind_tables(online, steps.tables_of_default(online))
    online.run("table of tenants", DOWN.read_text(encoding="utf-8"))
