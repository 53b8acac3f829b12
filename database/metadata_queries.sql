-- metadata_fields --
-- Every top-level key, and what kinds of values it has.
SELECT key,
       bool_and(jsonb_typeof(value) = 'number') AS numeric,
       bool_and(jsonb_typeof(value) = 'number' AND value::text ~ '^-?[0-9]+$') AS whole,
       bool_and(jsonb_typeof(value) = 'boolean') AS truth
  FROM {table}, jsonb_each(CASE jsonb_typeof(meta) WHEN 'object' THEN meta END) AS entries (key, value)
 WHERE value <> 'null' OR NOT EXISTS (SELECT FROM {table} WHERE meta -> key <> 'null')
 GROUP BY key
 ORDER BY key

-- values_of_field --
-- A field's values with what they are ordered by: numbers before texts before the rest.
SELECT {value} AS value,
       CASE jsonb_typeof({value}) WHEN 'number' THEN 1 WHEN 'string' THEN 2 ELSE 3 END AS kind,
       CASE jsonb_typeof({value}) WHEN 'number' THEN {value}::numeric END AS number,
       {value} #>> '{{}}' COLLATE "C" AS text
  FROM {table}
 WHERE {value} <> 'null' AND {condition}

-- smallest_and_largest --
-- Of a field's numbers; where it has none of its texts, and else of what it has.
WITH present AS MATERIALIZED ({present})
SELECT (SELECT value FROM present ORDER BY kind, number, text LIMIT 1) AS min,
       (SELECT value FROM present ORDER BY kind, number DESC, text DESC LIMIT 1) AS max

-- unique_values --
-- Values are the same when they are written the same: 1, 1.0, "1" and true are four.
WITH present AS MATERIALIZED (
    SELECT DISTINCT ON (value::text COLLATE "C") value, kind, number, text
      FROM ({present}) AS present
     WHERE %(search_term)s::text IS NULL OR position(lower(%(search_term)s::text) IN lower(text)) > 0
     ORDER BY value::text COLLATE "C"
), page AS (
    SELECT value, row_number() OVER (ORDER BY kind, number, text) AS place
      FROM present
     ORDER BY place
     LIMIT %(size)s OFFSET %(from)s
)
SELECT (SELECT coalesce(jsonb_agg(value ORDER BY place), '[]') FROM page) AS values,
       (SELECT count(*) FROM present) AS total
