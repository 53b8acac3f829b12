"""
Keyword tables beside each documents table instead of its keyword index, and declared metadata fields.

Revision ID: 0002
Revises: 0001
"""

from pathlib import Path

from database.schema_versions import steps

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
    online = steps.run(revision, FILES)
    if online is not None:
        for model in online.models():
            steps.add_keywords(online, model)


def downgrade() -> None:
    online = steps.required(revision)
    for model in online.models():
        steps.remove_keywords(online, model)
    for index in steps.indexes_of_fields(online):
        online.drop_index(index)
    online.run("declared fields", "DROP TABLE IF EXISTS metadata_fields")
