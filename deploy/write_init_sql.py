"""
Write init.sql: the schema versions' own SQL, in order, in one transaction. Run by `make init-sql`.

It is for Docker's first start and for people who read; Alembic, behind `database upgrade`, remains what moves a
database from one version to the next.
"""

from __future__ import annotations

from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory

PROJECT = Path(__file__).parents[1]

HEAD = """\
-- The whole schema at version {version}: for the first start of Docker's image, and for people who read.
-- Written by deploy/write_init_sql.py from the files in database/; change those and run `make init-sql`.
-- Harmless on a database at this version; a database at any other version is refused and left as it is.

BEGIN;

-- Two first starts take turns, and with `database upgrade`, too.
SELECT pg_advisory_xact_lock(hashtext('synapse schema'));

CREATE TABLE IF NOT EXISTS alembic_version (
    version_num varchar(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
DO $$
DECLARE
    other text;
BEGIN
    SELECT version_num INTO other FROM alembic_version WHERE version_num <> '{version}';
    IF FOUND THEN
        RAISE EXCEPTION 'init.sql makes schema version {version}, but this database is at version %', other
            USING HINT = 'Run `python synapse.py database upgrade` instead.';
    END IF;
END
$$;
INSERT INTO alembic_version (version_num) VALUES ('{version}') ON CONFLICT DO NOTHING;
"""


def init_sql() -> str:
    """The text of init.sql for the newest schema version."""
    config = Config()
    config.set_main_option("script_location", str(PROJECT / "database" / "schema_versions").replace("%", "%%"))
    versions = list(ScriptDirectory.from_config(config).walk_revisions())  # newest first
    # A file that several versions run is written once: it stands as it is now.
    files = dict.fromkeys(file for version in reversed(versions) for file in version.module.FILES)
    parts = [f"-- {file.relative_to(PROJECT)}\n\n{file.read_text(encoding='utf-8')}" for file in files]
    return "\n".join([HEAD.format(version=versions[0].revision), *parts, "COMMIT;\n"])


if __name__ == "__main__":
    (PROJECT / "init.sql").write_text(init_sql(), encoding="utf-8")
