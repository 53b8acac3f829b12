-- rows --
-- The planner's count, which costs nothing; a table that was never analysed has none.
SELECT CASE WHEN reltuples > 0 THEN reltuples::bigint ELSE -1 END AS rows,
       pg_relation_size(oid) / current_setting('block_size')::bigint AS pages
  FROM pg_class
 WHERE oid = to_regclass(%(table)s)

-- count --
SELECT count(*) AS rows FROM {table}

-- vectors --
-- Of pages taken at random: on a large table the rest is not read. Zeros are in no index of cosine distance.
SELECT embedding::{vector_type} AS embedding
  FROM {table} TABLESAMPLE SYSTEM (%(percent)s) REPEATABLE (%(seed)s)
 WHERE embedding IS NOT NULL AND (embedding <#> embedding) < 0
 ORDER BY md5(id || %(seed)s::text)
 LIMIT %(count)s

-- metadata --
SELECT meta
  FROM {table} TABLESAMPLE SYSTEM (%(percent)s) REPEATABLE (%(seed)s)
 WHERE embedding IS NOT NULL
 ORDER BY md5(id || %(seed)s::text)
 LIMIT %(count)s

-- share --
SELECT count(*) AS rows, count(*) FILTER (WHERE {condition}) AS passing
  FROM {table} TABLESAMPLE SYSTEM (%(percent)s) REPEATABLE (%(seed)s)
 WHERE embedding IS NOT NULL
