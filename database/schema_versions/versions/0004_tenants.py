"""
Tenants: a role and a schema for each; what there was belongs to the tenant `default`.

Revision ID: 0004
Revises: 0003
"""

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"

DATABASE = Path(__file__).parents[2]

FILES = (
    DATABASE / "tenancy_functions.sql",
    DATABASE / "create_documents_table.sql",
    Path(__file__).with_name("0004.sql"),
    Path(__file__).with_name("0004_default_tenant.sql"),
    Path(__file__).with_name("0004_old_programs_out.sql"),
)
"""What this version runs, in order."""


def upgrade() -> None:
    cursor = op.get_bind().connection.cursor()  # psycopg2's own, which leaves a lone % alone
    for path in FILES:
        cursor.execute(path.read_text(encoding="utf-8"))
