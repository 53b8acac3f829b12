"""
Write deploy/supabase/migrations/: the schema versions and the functions for Supabase's API, as `supabase db push` takes them.

Each version is a migration, made of the files that Alembic runs for it. What is Supabase's own comes after the newest. Run as
`python -m deploy.write_supabase` after a change of the schema or of deploy/supabase/.
"""

from __future__ import annotations

from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory

from database.ranking import Ranking
from database.search_queries import FIRST_MATCHES, MAX_TERMS
from database.sql import statements

PROJECT = Path(__file__).parents[1]
FOLDER = PROJECT / "deploy" / "supabase"

MIGRATIONS = {
    "20261121000001": "0001",
    "20261121000002": "0002",
    "20261121000003": "0003",
    "20261121000004": "0004",
    "20261121000005": "0005",
    "20261121000006": "0006",
    "20261121000100": "api",
}
"""
What each migration brings, by the time that names it: a schema version, or the functions for the API. A database runs each once:
a new version is a new line, and where the functions change, so are they, once more.
"""

HEAD = """\
-- {title}
-- Written by deploy/write_supabase.py from the files named below; change those and run `python -m deploy.write_supabase`.

BEGIN;

-- Where Supabase has pgvector, whoever runs this.
SET LOCAL search_path = public, extensions;
"""

EXTENSION = """\
-- Before anything names its types. Where it is installed already, it stays where it is.
CREATE SCHEMA IF NOT EXISTS extensions;
CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA extensions;
"""

VERSION = """\
-- Takes turns with others, and with `python synapse.py database upgrade`.
SELECT pg_advisory_xact_lock(hashtext('synapse schema'));
CREATE TABLE IF NOT EXISTS alembic_version (
    version_num varchar(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
DO $$
DECLARE
    found text := coalesce((SELECT version_num FROM alembic_version), 'none');
BEGIN
    IF found NOT IN ('{before}', '{version}') THEN
        RAISE EXCEPTION 'this migration makes schema version {version} of version {before}, but this database is at version %', found
            USING HINT = 'Where it is newer: supabase migration repair --status applied {timestamp}';
    END IF;
END
$$;
DELETE FROM alembic_version WHERE version_num = '{before}';
INSERT INTO alembic_version (version_num) VALUES ('{version}') ON CONFLICT DO NOTHING;
"""


def migrations() -> dict[str, str]:
    """The text of each migration, by the name of its file."""
    config = Config()
    config.set_main_option("script_location", str(PROJECT / "database" / "schema_versions").replace("%", "%%"))
    versions = {version.revision: version for version in ScriptDirectory.from_config(config).walk_revisions()}
    texts = {}
    for timestamp, name in MIGRATIONS.items():
        if name == "api":
            texts[f"{timestamp}_synapse_api.sql"] = _api()
            continue
        version = versions.pop(name)
        title = f"Synapse's schema, version {name}: {version.doc}"
        guard = VERSION.format(before=version.down_revision or "none", version=name, timestamp=timestamp)
        file_name = f"{timestamp}_synapse_{Path(version.path).stem}.sql"
        texts[file_name] = _migration(title, [guard, *map(_part, version.module.FILES)])
    if versions:
        raise ValueError(
            f"no migration of deploy/write_supabase.py has the schema versions {', '.join(sorted(versions))}"
        )
    return texts


def _migration(title: str, parts: list[str]) -> str:
    return "\n".join([HEAD.format(title=title), *parts, "COMMIT;\n"])


def _part(file: Path) -> str:
    text = EXTENSION if file.name == "extension.sql" else file.read_text(encoding="utf-8")
    return f"-- {file.relative_to(PROJECT)}\n\n{text}"


def _api() -> str:
    title = "Search through Supabase's API: who may read what, functions for RPC, grants."
    parts = [_part(FOLDER / name) for name in ("access.sql", "search_functions.sql", "grants.sql")]
    return _migration(title, parts).replace("{worded}", _worded())


def _worded() -> str:
    """
    The program's own search by words, as a template for `format`: tables of documents, keywords and terms, and a condition.

    Its question is the parameter $1, and the number of documents wanted $2.
    """
    texts = statements(PROJECT / "database" / "search_queries.sql")
    values = {"question": "$1", "max_terms": MAX_TERMS, "worded": "$2", "top_k": "$2", **Ranking().to_dict()}
    names = {"table": "%1$I", "keywords": "%2$I", "terms": "%3$I", "passing": "%4$s", "first_matches": FIRST_MATCHES}
    worded, score, statement = (texts[name] % values for name in ("worded", "keyword_score", "keyword_documents"))
    return statement.format(worded=worded.format(**names), columns="id", keyword_score=score.format(**names), **names)


def write() -> None:
    """Write the migrations, and remove those that are none any more."""
    folder = FOLDER / "migrations"
    folder.mkdir(exist_ok=True)
    texts = migrations()
    for path in folder.glob("*.sql"):
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
