"""
Users, their keys and passwords, conversations, feedback and usage; each row belongs to a tenant.

Revision ID: 0005
Revises: 0004
"""

from pathlib import Path

from database.schema_versions import steps

revision = "0005"
down_revision = "0004"

FILES = (Path(__file__).with_name("0005.sql"),)
"""What this version runs, in order."""


def upgrade() -> None:
    steps.run(revision, FILES)


def downgrade() -> None:
    tables = "feedback, chat_messages, chat_sessions, usage_logs, api_keys, users"
    steps.required(revision).run("tables of conversations", f"DROP TABLE IF EXISTS {tables}")
