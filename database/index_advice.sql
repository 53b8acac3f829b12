-- server_facts --
SELECT (SELECT setting::bigint * 8192 FROM pg_settings WHERE name = 'shared_buffers') AS shared_buffers,
       (SELECT setting::bigint * 1024 FROM pg_settings WHERE name = 'maintenance_work_mem') AS maintenance_work_mem,
       current_setting('max_parallel_maintenance_workers')::integer AS maintenance_workers,
       current_setting('max_worker_processes')::integer AS worker_processes

-- rows --
SELECT count(*) AS rows FROM {table} WHERE embedding IS NOT NULL
