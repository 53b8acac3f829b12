-- rows --
-- The planner's count, which costs nothing; a table that was never analysed has none.
SELECT CASE WHEN min(reltuples) >= 0 AND sum(reltuples) > 0 THEN sum(reltuples)::bigint ELSE -1 END AS rows
  FROM pg_class
 WHERE oid IN (SELECT relid FROM pg_partition_tree(to_regclass(%(table)s)) WHERE isleaf
                UNION
               SELECT to_regclass(%(table)s) WHERE NOT EXISTS (SELECT FROM pg_partition_tree(to_regclass(%(table)s))))
HAVING count(*) > 0

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
