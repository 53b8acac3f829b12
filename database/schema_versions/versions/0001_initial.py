"""
Models, the ledger of sources, and the documents table of the default model.

Revision ID: 0001
Revises:
"""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None

VERSIONS = Path(__file__).parent
FUNCTIONS = VERSIONS.parents[1]


def upgrade() -> None:
    with op.get_bind().connection.cursor() as cursor:  # psycopg2's own, which leaves a lone % alone
        for path in (
            FUNCTIONS / "filter_functions.sql",
            FUNCTIONS / "create_documents_table.sql",
            VERSIONS / "0001.sql",
        ):
            cursor.execute(path.read_text(encoding="utf-8"))
