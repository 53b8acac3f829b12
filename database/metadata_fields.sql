-- occurring_fields --
-- Every field, those in mappings too, with the types of its values and in how many documents each occurs.
WITH RECURSIVE entries AS (
    SELECT ARRAY[key] AS keys, value
      FROM {table}, jsonb_each(CASE jsonb_typeof(meta) WHEN 'object' THEN meta END) AS entries (key, value)
     UNION ALL
    SELECT keys || key, inner_ones.value
      FROM entries, jsonb_each(CASE jsonb_typeof(value) WHEN 'object' THEN value END) AS inner_ones (key, value)
     WHERE cardinality(keys) < %(depth)s
)
SELECT keys,
       CASE jsonb_typeof(value)
           WHEN 'string' THEN CASE WHEN left(value #>> '{{}}', 5) NOT LIKE '____-' THEN 'text'
                                   WHEN synapse_instant(value, NULL) IS NULL THEN 'text'
                                   ELSE 'date' END
           WHEN 'object' THEN 'mapping'
           WHEN 'array' THEN 'list'
           ELSE jsonb_typeof(value)
       END AS type,
       count(*) AS documents
  FROM entries
 GROUP BY 1, 2
 ORDER BY 1, 2

-- sampled_fields --
-- The same of some hundred pages of the table, where a whole one would take long; text is not looked into for dates.
WITH RECURSIVE entries AS (
    SELECT ARRAY[key] AS keys, value
      FROM {table} TABLESAMPLE SYSTEM (least(100, 100.0 * %(pages)s / greatest(1,
               (SELECT coalesce(sum(pg_relation_size(relid)), pg_relation_size({table_name}::regclass))
                  FROM pg_partition_tree({table_name}::regclass)) / current_setting('block_size')::int))),
           jsonb_each(CASE jsonb_typeof(meta) WHEN 'object' THEN meta END) AS entries (key, value)
     UNION ALL
    SELECT keys || key, inner_ones.value
      FROM entries, jsonb_each(CASE jsonb_typeof(value) WHEN 'object' THEN value END) AS inner_ones (key, value)
     WHERE cardinality(keys) < %(depth)s
)
SELECT keys, array_agg(DISTINCT jsonb_typeof(value)) AS types
  FROM entries
 GROUP BY keys
 LIMIT %(fields)s

-- field_occurs --
SELECT EXISTS (SELECT FROM {table} WHERE {value} IS NOT NULL) AS occurs

-- declared_fields --
-- `indexed` is false while an index is being built, or when something else dropped it.
SELECT name, type, index_name, declared_at, coalesce(indisvalid, false) AS indexed
  FROM metadata_fields
  LEFT JOIN pg_index ON indexrelid = to_regclass(quote_ident(index_name))
 WHERE table_name = %(table_name)s
 ORDER BY name

-- partition_indexes --
-- The parts of an index on a partitioned table; none of another.
SELECT relid::regclass::text AS name FROM pg_partition_tree(to_regclass(quote_ident(%(index_name)s))) WHERE isleaf AND level > 0

-- is_partitioned --
SELECT relkind IN ('p', 'I') AS yes FROM pg_class WHERE oid = to_regclass(quote_ident(%(name)s))

-- index_is_valid --
-- No row where there is no such index.
SELECT indisvalid AS valid FROM pg_index WHERE indexrelid = to_regclass(quote_ident(%(index_name)s))

-- table_exists --
SELECT to_regclass(quote_ident(%(table_name)s)) IS NOT NULL AS found

-- take_turn --
-- Tried, not waited for: a session that waits would be waited for by the building of the index.
SELECT pg_try_advisory_lock(hashtext('synapse metadata fields'), hashtext(%(table_name)s)) AS taken

-- release_turn --
SELECT pg_advisory_unlock(hashtext('synapse metadata fields'), hashtext(%(table_name)s))

-- build_progress --
SELECT phase, blocks_done, blocks_total FROM pg_stat_progress_create_index WHERE pid = %(pid)s

-- remember_field --
INSERT INTO metadata_fields (table_name, name, type, index_name)
VALUES (%(table_name)s, %(name)s, %(type)s, %(index_name)s)
    ON CONFLICT (table_name, name) DO UPDATE
       SET type = excluded.type, index_name = excluded.index_name, declared_at = now()

-- forget_field --
DELETE FROM metadata_fields WHERE table_name = %(table_name)s AND name = %(name)s

-- forget_table --
DELETE FROM metadata_fields WHERE table_name = %(table_name)s
