-- all_documents --
SELECT {columns} FROM {table} WHERE {condition}

-- count_documents --
SELECT count(*) AS documents FROM {table} WHERE {condition}

-- embeddings --
SELECT id, embedding FROM {table} WHERE id = ANY(%(ids)s::text[]) AND embedding IS NOT NULL

-- delete_documents --
-- Locked in one order first: writers of the same documents wait for each other, but never in a circle.
WITH locked AS MATERIALIZED (
    SELECT id FROM {table} WHERE id = ANY(%(ids)s::text[]) ORDER BY id FOR UPDATE
)
DELETE FROM {table} WHERE id IN (SELECT id FROM locked)

-- delete_documents_by_filter --
DELETE FROM {table} WHERE {condition}

-- delete_all_documents --
TRUNCATE {table}

-- update_documents_by_filter --
UPDATE {table} SET meta = coalesce(meta, '{{}}') || %(meta)s::jsonb WHERE {condition}

-- drop_table --
DROP TABLE IF EXISTS {table}, {keywords}, {terms}
