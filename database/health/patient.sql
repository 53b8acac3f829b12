-- settings --
-- Those that matter, as they hold in this session, with what one unit is in bytes; numbers without a unit count as they are.
SELECT name, current_setting(name) AS shown, setting, source, context,
       CASE unit WHEN '8kB' THEN 8192 WHEN 'kB' THEN 1024 WHEN 'MB' THEN 1048576 WHEN 'B' THEN 1 ELSE 1 END AS unit_bytes
  FROM pg_settings
 WHERE name IN ('fsync', 'full_page_writes', 'autovacuum', 'track_counts', 'maintenance_work_mem', 'work_mem', 'shared_buffers',
                'effective_cache_size', 'max_parallel_maintenance_workers', 'max_connections', 'data_directory', 'data_checksums', 'enable_indexscan')

-- tables --
-- Each registered model's table in a schema, beside what the registry says of it. Of a partitioned one, rows and bytes are the
-- sums over its partitions; rows are the larger of what the planner and what the statistics collector count.
SELECT m.table_name AS name, m.model, m.name AS registered, m.language, m.dimension, m.vector_type, m.active,
       c.oid, t.typname AS column_type, nullif(a.atttypmod, -1) AS column_dimension,
       coalesce(parts.rows, 0) AS rows, coalesce(parts.bytes, 0) AS bytes, obj_description(c.oid, 'pg_class') AS note
  FROM embedding_models m
  LEFT JOIN pg_class c ON c.oid = to_regclass(format('%%I.%%I', %(schema)s::text, m.table_name))
  LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'embedding' AND NOT a.attisdropped
  LEFT JOIN pg_type t ON t.oid = a.atttypid
  LEFT JOIN LATERAL (
      SELECT sum(greatest(p.reltuples, s.n_live_tup, 0))::bigint AS rows, sum(pg_relation_size(p.oid))::bigint AS bytes
        FROM (SELECT c.oid AS relid WHERE c.relkind = 'r'
               UNION ALL
              SELECT relid FROM pg_partition_tree(c.oid) WHERE c.relkind = 'p' AND isleaf) AS leaves
        JOIN pg_class p ON p.oid = leaves.relid
        LEFT JOIN pg_stat_all_tables s ON s.relid = p.oid
  ) AS parts ON true
 ORDER BY m.created_at, m.name

-- sees_all --
SELECT rolsuper OR pg_has_role(oid, 'pg_read_all_stats', 'USAGE') AS sees_all FROM pg_roles WHERE rolname = current_user

-- has_role --
SELECT to_regrole('synapse_tenant_' || %(tenant)s) IS NOT NULL AS found
