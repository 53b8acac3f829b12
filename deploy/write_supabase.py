"""
Write deploy/supabase/migrations/: the schema and the functions for Supabase's API, as `supabase db push` takes them.

The first is init.sql with pgvector in Supabase's schema for extensions. It is for new projects; Alembic, behind
`database upgrade`, remains what moves a project from one version to the next. Run by `python -m deploy.write_supabase`,
after a change of the schema or of deploy/supabase/.
"""

from __future__ import annotations

from pathlib import Path

from database.ranking import Ranking
from database.search_queries import FIRST_MATCHES, MAX_TERMS
from database.sql import statements
from deploy.write_init_sql import PROJECT, init_sql

FOLDER = PROJECT / "deploy" / "supabase"

SCHEMA_TITLE = """\
-- Synapse's schema for a new Supabase project; one that has it is upgraded by `python synapse.py database upgrade`.
-- Written from the files in database/; change those and run `python -m deploy.write_supabase`.
"""
API_TITLE = """\
-- Search through Supabase's API: who may read what, functions for RPC, grants. It may be run again at any time.
-- Written from the files in deploy/supabase/; change those and run `python -m deploy.write_supabase`.
"""
BEGIN = """\
BEGIN;

-- Supabase has pgvector in a schema of its own.
SET LOCAL search_path = public, extensions;
"""
EXTENSION = """\
-- Before anything names its types. Where it is installed already, it stays where it is.
CREATE SCHEMA IF NOT EXISTS extensions;
CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA extensions;
"""


def migrations() -> dict[str, str]:
    """The text of each migration, by its file's name; the number is the time by which Supabase tells them apart."""
    return {"20261121000001_synapse_schema.sql": _schema(), "20261121000002_synapse_api.sql": _api()}


def _schema() -> str:
    _, begin, body = init_sql().partition("BEGIN;\n")
    extension = (PROJECT / "database" / "extension.sql").read_text(encoding="utf-8")
    if not begin or body.count(extension) != 1:
        raise ValueError("init.sql was expected to begin a transaction and to create the extension once")
    return SCHEMA_TITLE + "\n" + BEGIN + body.replace(extension, EXTENSION)


def _api() -> str:
    files = [FOLDER / name for name in ("access.sql", "search_functions.sql", "grants.sql")]
    parts = [f"-- {file.relative_to(PROJECT)}\n\n{file.read_text(encoding='utf-8')}" for file in files]
    return "\n".join([API_TITLE, BEGIN, *parts, "COMMIT;\n"]).replace("{worded}", _worded())


def _worded() -> str:
    """
    The program's own search by words, as a template for `format`: of three tables and a condition.

    Its question is the parameter $1, and the number of documents wanted $2.
    """
    texts = statements(PROJECT / "database" / "search_queries.sql")
    values = {"question": "$1", "max_terms": MAX_TERMS, "worded": "$2", "top_k": "$2", **Ranking().to_dict()}
    names = {"table": "%1$I", "keywords": "%2$I", "terms": "%3$I", "passing": "%4$s", "first_matches": FIRST_MATCHES}
    worded, score, statement = (texts[name] % values for name in ("worded", "keyword_score", "keyword_documents"))
    return statement.format(worded=worded.format(**names), columns="id", keyword_score=score.format(**names), **names)


def write(folder: Path = FOLDER / "migrations") -> None:
    """Write the migrations into a folder."""
    folder.mkdir(exist_ok=True)
    for name, text in migrations().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
