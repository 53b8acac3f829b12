-- matching_sources --
-- Sources with a chunk that a filter lets pass.
SELECT DISTINCT source
  FROM source_chunks
 WHERE model = %(model)s AND document_id IN (SELECT id FROM {table} WHERE {condition})

-- fields --
-- Metadata fields with the kinds of their values, how many documents have them, and their most frequent values.
WITH entries AS (
    SELECT key, value, jsonb_typeof(value) AS kind, count(*) AS documents
      FROM {table}, jsonb_each(CASE jsonb_typeof(meta) WHEN 'object' THEN meta END) AS entries (key, value)
     GROUP BY key, value
), ranked AS (
    SELECT *, row_number() OVER (PARTITION BY key ORDER BY documents DESC, value) AS place FROM entries
)
SELECT key AS field,
       array_agg(DISTINCT kind ORDER BY kind) AS types,
       sum(documents)::bigint AS documents,
       count(*) AS different,
       jsonb_agg(value ORDER BY place) FILTER (WHERE place <= 3) AS examples
  FROM ranked
 GROUP BY key
 ORDER BY key
