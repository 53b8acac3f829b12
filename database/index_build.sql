-- index_state --
-- Whether an index is there, and whole: a concurrent build that failed leaves one that is not valid.
SELECT indisvalid AS valid FROM pg_index WHERE indexrelid = to_regclass(%(name)s)

-- partitions --
-- The parts of a partitioned table, with a name for an index on each that nothing has yet; all quoted.
SELECT quote_ident(n.nspname) AS schema, quote_ident(c.relname) AS name,
       quote_ident(left(c.relname, 44) || '_' || substr(md5(random()::text), 1, 8) || '_index') AS index
  FROM pg_partition_tree(to_regclass(%(table)s)) p
  JOIN pg_class c ON c.oid = p.relid
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE p.isleaf AND p.level > 0
 ORDER BY length(c.relname), c.relname

-- server_settings --
SELECT setting::bigint * 1024 AS memory, current_setting('max_parallel_maintenance_workers')::integer AS workers
  FROM pg_settings
 WHERE name = 'maintenance_work_mem'

-- build_settings --
-- For this transaction, or session. Without a least size a table gets as many workers as there are; by PostgreSQL's measure one
-- of 40 MB would get two.
SELECT set_config('maintenance_work_mem', %(memory)s, %(local)s),
       set_config('max_parallel_maintenance_workers', %(workers)s, %(local)s),
       set_config('min_parallel_table_scan_size', '0', %(local)s),
       set_config('statement_timeout', '0', %(local)s)

-- build_progress --
SELECT blocks_done AS done, blocks_total AS total FROM pg_stat_progress_create_index WHERE pid = %(pid)s
