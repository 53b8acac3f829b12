-- index_state --
-- Whether an index is there, and whole: a concurrent build that failed leaves one that is not valid.
SELECT indisvalid AS valid FROM pg_index WHERE indexrelid = to_regclass(%(name)s)

-- server_settings --
SELECT setting::bigint * 1024 AS memory, current_setting('max_parallel_maintenance_workers')::integer AS workers
  FROM pg_settings
 WHERE name = 'maintenance_work_mem'

-- build_settings --
-- For this transaction. Without a least size a table gets as many workers as there are; by PostgreSQL's measure one of 40 MB
-- would get two.
SELECT set_config('maintenance_work_mem', %(memory)s, true),
       set_config('max_parallel_maintenance_workers', %(workers)s, true),
       set_config('min_parallel_table_scan_size', '0', true),
       set_config('statement_timeout', '0', true)

-- build_progress --
SELECT blocks_done AS done, blocks_total AS total FROM pg_stat_progress_create_index WHERE pid = %(pid)s
