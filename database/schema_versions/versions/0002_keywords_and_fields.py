"""
Keyword tables beside each documents table instead of its keyword index, and declared metadata fields.

Revision ID: 0002
Revises: 0001
"""

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"

DATABASE = Path(__file__).parents[2]
FILES = (
    DATABASE / "extension.sql",
    DATABASE / "filter_functions.sql",
    DATABASE / "keyword_functions.sql",
    DATABASE / "tenancy_functions.sql",
    DATABASE / "create_documents_table.sql",
    Path(__file__).with_name("0002.sql"),
)
"""What this version runs, in order."""


def upgrade() -> None:
    cursor = op.get_bind().connection.cursor()  # psycopg2's own, which leaves a lone % alone
    for path in FILES:
        cursor.execute(path.read_text(encoding="utf-8"))
