"""
Users, their keys and passwords, conversations, feedback and usage; each row belongs to a tenant.

Revision ID: 0005
Revises: 0004
"""

from pathlib import Path

from alembic import op

revision = "0005"
down_revision = "0004"

FILES = (Path(__file__).with_name("0005.sql"),)
"""What this version runs, in order."""


def upgrade() -> None:
    cursor = op.get_bind().connection.cursor()  # psycopg2's own, which leaves a lone % alone
    for path in FILES:
        cursor.execute(path.read_text(encoding="utf-8"))
