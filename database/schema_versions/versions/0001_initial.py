"""
Models, the ledger of sources, and the documents table of the default model.

Revision ID: 0001
Revises:
"""

from pathlib import Path

from database.schema_versions import steps

revision = "0001"
down_revision = None

DATABASE = Path(__file__).parents[2]
FILES = (
    DATABASE / "extension.sql",
    DATABASE / "filter_functions.sql",
    DATABASE / "keyword_functions.sql",
    DATABASE / "tenancy_functions.sql",
    DATABASE / "create_documents_table.sql",
    Path(__file__).with_name("0001.sql"),
)
"""What this version runs, in order; deploy/write_init_sql.py reads it, too."""


def upgrade() -> None:
    steps.run(revision, FILES)
