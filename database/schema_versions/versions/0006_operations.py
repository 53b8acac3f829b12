"""
Certificates of recall, and views for whoever watches the database.

Revision ID: 0006
Revises: 0005
"""

from pathlib import Path

from database.schema_versions import steps

revision = "0006"
down_revision = "0005"

DATABASE = Path(__file__).parents[2]
FILES = (
    DATABASE / "filter_functions.sql",
    DATABASE / "keyword_functions.sql",
    DATABASE / "tenancy_functions.sql",
    DATABASE / "create_documents_table.sql",
    Path(__file__).with_name("0006.sql"),
    DATABASE / "observation_views.sql",
)
"""What this version runs, in order."""

DOWN = Path(__file__).with_name("0006_down.sql")


def upgrade() -> None:
    steps.run(revision, FILES)


def downgrade() -> None:
    steps.required(revision).run("certificates and views", DOWN.read_text(encoding="utf-8"))
