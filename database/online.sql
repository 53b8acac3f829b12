-- take_turn --
-- Held by the connection, so that an upgrade that dies leaves nothing to clear away. Tried, and not waited for: who waits inside a
-- statement is waited for by a concurrent index build.
SELECT pg_try_advisory_lock(hashtext('synapse'), hashtext('upgrade')) AS got

-- end_turn --
SELECT pg_advisory_unlock(hashtext('synapse'), hashtext('upgrade'))

-- turns --
-- Sessions that hold the turn in this database.
SELECT pid
  FROM pg_locks
 WHERE locktype = 'advisory' AND granted AND objsubid = 2
   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND classid = hashtext('synapse')::oid AND objid = hashtext('upgrade')::oid

-- begin_step --
-- Who asks for a lock makes everybody behind it wait, too: for this long at most. Then init.sql and new tenants wait for this step.
SELECT set_config('lock_timeout', %(lock_timeout)s, true),
       EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND objsubid = 2 AND granted
                  AND classid = hashtext('synapse')::oid AND objid = hashtext('upgrade')::oid) AS mine

-- lock_schema --
SELECT pg_advisory_xact_lock(hashtext('synapse schema'))

-- in_the_way --
-- The oldest transaction of somebody else here, which probably holds what a step waits for.
SELECT pid, coalesce(nullif(application_name, ''), usename, backend_type) AS who,
       extract(epoch FROM now() - xact_start)::integer AS seconds
  FROM pg_stat_activity
 WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid() AND datname = current_database()
 ORDER BY xact_start
 LIMIT 1

-- index_state --
SELECT indisvalid AS valid FROM pg_index WHERE indexrelid = to_regclass(%(index)s)

-- build_progress --
-- Of an index that is built concurrently: the scan of the table, then its second one; and whose transaction it waits for.
SELECT CASE WHEN blocks_total > 0 THEN blocks_done ELSE tuples_done END AS done,
       CASE WHEN blocks_total > 0 THEN blocks_total ELSE tuples_total END AS total,
       a.pid AS waits_for, coalesce(nullif(a.application_name, ''), a.usename, a.backend_type) AS who,
       extract(epoch FROM now() - a.xact_start)::integer AS seconds
  FROM pg_stat_progress_create_index p
  LEFT JOIN pg_stat_activity a ON a.pid = p.current_locker_pid AND a.pid <> 0
 WHERE p.pid = %(pid)s

-- note --
SELECT obj_description(to_regclass('public.alembic_version'), 'pg_class') AS note

-- models --
SELECT name, table_name, dimension, vector_type, language FROM public.embedding_models ORDER BY name
