-- table_to_load --
-- The table, whether questions go to it, and what an unfinished load noted in its comment.
SELECT c.oid, nspname AS schema, c.relname AS name, obj_description(c.oid, 'pg_class') AS comment, c.relforcerowsecurity AS forced,
       EXISTS (SELECT FROM embedding_models m WHERE m.active AND to_regclass(quote_ident(m.table_name)) = c.oid) AS active
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid = to_regclass(%(table)s)

-- has_rows --
SELECT EXISTS (SELECT FROM {table}) AS found

-- lock_load --
-- Held by the connection, so that a load that dies leaves nothing to clear away.
SELECT pg_try_advisory_lock(hashtextextended('synapse bulk load', %(oid)s)) AS got

-- loading_indexes --
-- What is built after the load: all but constraints and unique indexes, which tell duplicates. Read with an empty search path,
-- so that every name is whole.
SELECT i.indexrelid::regclass::text AS name, pg_get_indexdef(i.indexrelid) AS definition,
       obj_description(i.indexrelid, 'pg_class') AS comment,
       (SELECT nullif(attstattarget, -1) FROM pg_attribute WHERE attrelid = i.indexrelid AND attnum = 1) AS statistics
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indexrelid
 WHERE i.indrelid = %(oid)s AND NOT i.indisunique
 ORDER BY c.relname

-- loading_triggers --
-- Those that keep the keyword tables, and the schema of their functions; what somebody else put there goes on.
SELECT tgname AS name, pronamespace::regnamespace::text AS functions
  FROM pg_trigger
  JOIN pg_proc ON pg_proc.oid = tgfoid
 WHERE tgrelid = %(oid)s AND NOT tgisinternal AND proname = 'synapse_update_keywords' AND tgname <> 'synapse_keywords_truncate'
 ORDER BY tgname

-- index_parts --
-- An index on a partitioned table with its parts, and any other alone.
SELECT %(name)s AS name
 UNION
SELECT relid::regclass::text FROM pg_partition_tree(to_regclass(%(name)s))

-- table_size --
SELECT count(*) AS rows FROM {table}

-- rebuild_keywords --
SELECT {functions}.synapse_rebuild_keywords(%(oid)s::oid::regclass)

-- missing_indexes --
-- Indexes that a registered model's table should have and has not: its HNSW index and those of its declared fields, and what
-- an unfinished load has dropped.
WITH expected AS (
    SELECT table_name, table_name || '_hnsw_index' AS index_name FROM embedding_models
     UNION ALL
    SELECT table_name, index_name FROM metadata_fields
)
SELECT table_name, index_name,
       coalesce(obj_description(to_regclass(quote_ident(table_name)), 'pg_class') LIKE 'synapse bulk load %%', false) AS loading
  FROM expected
 WHERE NOT EXISTS (SELECT FROM pg_index
                    WHERE indexrelid = to_regclass(quote_ident(index_name))
                      AND indrelid = to_regclass(quote_ident(table_name)) AND indisvalid)
   AND to_regclass(quote_ident(table_name)) IS NOT NULL
 ORDER BY table_name, index_name
