"""
What migrations made, and how far they are.

Revision ID: 0003
Revises: 0002
"""

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"

FILES = (Path(__file__).with_name("0003.sql"),)
"""What this version runs, in order."""


def upgrade() -> None:
    cursor = op.get_bind().connection.cursor()  # psycopg2's own, which leaves a lone % alone
    for path in FILES:
        cursor.execute(path.read_text(encoding="utf-8"))
