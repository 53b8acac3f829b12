"""
What migrations made, and how far they are.

Revision ID: 0003
Revises: 0002
"""

from pathlib import Path

from database.schema_versions import steps

revision = "0003"
down_revision = "0002"

FILES = (Path(__file__).with_name("0003.sql"),)
"""What this version runs, in order."""


def upgrade() -> None:
    steps.run(revision, FILES)


def downgrade() -> None:
    steps.required(revision).run(
        "tables of migrations", "DROP TABLE IF EXISTS migration_rows, migration_parts, migration_runs"
    )
