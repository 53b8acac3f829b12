"""Databases at the first schema version, and what is compared of a database before and after a change of its schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg

FIRST = Path(__file__).parents[1] / "fixtures" / "schema" / "0001.sql"
TABLE = "documents_all_minilm_l6_v2"
BASE = "base/"
"""How ids of the documents begin that nobody changes."""

FILL = f"""
INSERT INTO {TABLE} (id, embedding, content, meta)
SELECT '{BASE}' || lpad(n::text, 7, '0'),
       (SELECT array_agg(random() - 0.5) FROM generate_series(1, 384) WHERE n = n)::vector,
       (SELECT string_agg('word' || (5000 * power(random(), 3))::integer, ' ') FROM generate_series(1, 40 + n % 40)),
       jsonb_build_object('title', 'Document ' || n, 'language', CASE n % 10 WHEN 0 THEN 'de' ELSE 'en' END)
  FROM generate_series(1, $1) AS n
"""  # noqa: S608
CHECKSUM = f"""
SELECT count(*), md5(string_agg(concat_ws('|', id, embedding, content, meta, xmin), ',' ORDER BY id))
  FROM {TABLE} WHERE starts_with(id, '{BASE}')
"""  # noqa: S608
CATALOG = {
    "columns": """
        SELECT c.oid::regclass::text, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attstorage,
               pg_get_expr(d.adbin, d.adrelid)
          FROM pg_attribute a
          JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'v')
          LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         WHERE c.relnamespace IN (SELECT oid FROM ours) AND a.attnum > 0 AND NOT a.attisdropped""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
         WHERE connamespace IN (SELECT oid FROM ours)""",
    "indexes": """
        SELECT pg_get_indexdef(indexrelid), indisvalid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
         WHERE relnamespace IN (SELECT oid FROM ours)""",
    "functions": """
        SELECT oid::regprocedure::text, pg_get_functiondef(oid) FROM pg_proc
         WHERE pronamespace IN (SELECT oid FROM ours) AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_proc.oid AND deptype = 'e')""",
    "views": """
        SELECT relname, pg_get_viewdef(oid) FROM pg_class WHERE relkind = 'v' AND relnamespace IN (SELECT oid FROM ours)""",
    "grants": """
        SELECT c.oid::regclass::text, a.grantee::regrole::text, a.privilege_type FROM pg_class c, aclexplode(c.relacl) a
         WHERE c.relnamespace IN (SELECT oid FROM ours)""",
    "policies": "SELECT schemaname, tablename, policyname, roles::text, cmd, qual, with_check FROM pg_policies",
    "row security": """
        SELECT oid::regclass::text, relrowsecurity, relforcerowsecurity FROM pg_class
         WHERE relkind = 'r' AND relnamespace IN (SELECT oid FROM ours)""",
    "triggers": "SELECT tgrelid::regclass::text, pg_get_triggerdef(oid), tgenabled FROM pg_trigger WHERE NOT tgisinternal",
    "version": "SELECT version_num FROM alembic_version",
    "notes": "SELECT obj_description('alembic_version'::regclass)",
}


def fill(connection: psycopg.Connection[Any], documents: int) -> None:
    """Make the first schema version in an empty database, with documents of some 60 words; its indexes are built last."""
    connection.execute(FIRST.read_bytes())
    names = [f"{TABLE}_hnsw_index", f"{TABLE}_keyword_index"]
    indexes = connection.execute(
        "SELECT pg_get_indexdef(name::regclass) FROM unnest(%s::text[]) AS name", (names,)
    ).fetchall()
    connection.execute(f"DROP INDEX {', '.join(names)}")
    connection.execute(FILL.replace("$1", str(documents)))
    for (definition,) in indexes:
        connection.execute(definition)
    connection.execute(f"ANALYZE {TABLE}")


def checksum(connection: psycopg.Connection[Any]) -> Any:
    """Of the documents that nobody changes, with the transactions that wrote them: a rewritten row would have another."""
    return connection.execute(CHECKSUM).fetchone()


def catalog(connection: psycopg.Connection[Any]) -> dict[str, list[str]]:
    """What a database is made of, as text."""
    ours = "WITH ours AS (SELECT oid FROM pg_namespace WHERE nspname = 'public' OR starts_with(nspname, 'tenant_'))"
    return {
        name: sorted(map(repr, connection.execute(f"{ours} {query}").fetchall())) for name, query in CATALOG.items()
    }


def keyword_statistics(
    connection: psycopg.Connection[Any], table: str = TABLE
) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """What the terms table says, and what it should say by the documents."""
    said = connection.execute(
        f"SELECT term, language, sum(documents), sum(length) FROM {table}_terms GROUP BY 1, 2 HAVING sum(documents) <> 0"  # noqa: S608
    ).fetchall()
    true = connection.execute(
        f"""
        WITH texts AS (SELECT id, synapse_text_search(meta ->> 'language', 'english') AS language,
                              concat_ws(E'\\n', meta ->> 'title', meta ->> 'heading', content) AS text FROM {table}),
             found AS (SELECT id, language, unnest(terms[:cardinality(terms) / 2]) AS term,
                              unnest(terms[cardinality(terms) / 2 + 1:]) AS frequency
                         FROM (SELECT id, language, synapse_terms(language, text) AS terms FROM texts OFFSET 0) AS parsed)
        SELECT term, NULL, count(*), NULL FROM found GROUP BY term
         UNION ALL
        SELECT 0, language, count(DISTINCT id), coalesce(sum(frequency), 0) FROM texts LEFT JOIN found USING (id, language)
         GROUP BY language
        """  # noqa: S608
    ).fetchall()
    return {row[:2]: row[2:] for row in said}, {row[:2]: row[2:] for row in true}


def require_keywords(connection: psycopg.Connection[Any], table: str = TABLE) -> None:
    """Each document is filed once, under the words that it has now, and the counts agree."""
    unlike = connection.execute(
        f"""
        WITH expected AS (SELECT id, synapse_terms(language, text) AS found
                            FROM (SELECT id, synapse_text_search(meta ->> 'language', 'english') AS language,
                                         concat_ws(E'\\n', meta ->> 'title', meta ->> 'heading', content) AS text
                                    FROM {table}) AS texts)
        SELECT coalesce(id, document_id)
          FROM expected FULL JOIN {table}_keywords ON document_id = id
         WHERE terms IS DISTINCT FROM coalesce(found[:cardinality(found) / 2], '{{}}')
        """  # noqa: S608
    ).fetchall()
    assert unlike == []
    said, true = keyword_statistics(connection, table)
    assert said == true
